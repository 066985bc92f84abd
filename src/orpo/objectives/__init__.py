"""The mathematics, one file each: log-probs (or scores) enter, a Loss leaves. An objective knows no model and no trainer.

A loss is used alone from its own file, `from orpo.objectives.orpo import orpo`, which imports torch. What this package
itself offers is the catalogue, free of torch: which objectives there are, their options, and the published presets.
"""

from orpo.objectives.catalogue import (
    OBJECTIVES,
    PRESET_NOTES,
    PRESETS,
    Option,
    bound,
    check_options,
    learns_chosen_alone,
    load,
    needs_baseline,
    needs_reference,
    no_rows,
    objective_options,
    one_line,
    reads,
)

__all__ = [
    "OBJECTIVES",
    "PRESETS",
    "PRESET_NOTES",
    "Option",
    "bound",
    "check_options",
    "learns_chosen_alone",
    "load",
    "needs_baseline",
    "needs_reference",
    "no_rows",
    "objective_options",
    "one_line",
    "reads",
]
