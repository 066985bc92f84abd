"""The claims of the ORPO paper on the built-in world: experiments enter, docs/evidence.md leaves. `python -m evidence` is the command.

One module an experiment. Each holds `record`, which measures and returns plain JSON, and what the page says of such a record: `claims`
with their verdicts, `lines` of its section, `picture`. Verdicts are computed by the rules of `claims.py`, never written by hand.
"""
