"""The data shapes known by name. A new one is a reader in `orpo.data.shapes`, a line in SHAPES and a fixture of three rows.

Rows go in, the shape they have comes out (`detect_shape`), and with it their pairs (`read_pairs`), or whatever an objective reads
(`read_records`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orpo.data.row import Row
from orpo.data.shapes import conversations, detection, instructions, labelled, looks, plain, ranked
from orpo.data.shapes.kinds import Kind
from orpo.data.shapes.reading import labelled_refusal, read_pairs, read_records
from orpo.data.shapes.shape import Shape

__all__ = ["SHAPES", "Shape", "detect_shape", "labelled_refusal", "read_pairs", "read_records"]

TEXT, TRANSCRIPT, MESSAGE, MESSAGES = Kind.TEXT, Kind.TRANSCRIPT, Kind.MESSAGE, Kind.MESSAGES
TEXTS, NUMBERS, LIST, FLAG, OBJECT, ANY = Kind.TEXTS, Kind.NUMBERS, Kind.LIST, Kind.FLAG, Kind.OBJECT, Kind.ANY


def _three(prompt: Kind, chosen: Kind, rejected: Kind | None = None) -> dict[str, Kind]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected or chosen}


def _two(chosen: Kind, **others: Kind) -> dict[str, Kind]:
    return {**others, "chosen": chosen, "rejected": chosen}


# fmt: off
SHAPES: tuple[Shape, ...] = (
    # plain text
    Shape("prompt-chosen-rejected", "prompt, chosen and rejected strings", _three(TEXT, TEXT), plain.strings, is_chat=False),
    Shape("prompt-repeated-strings", "strings; chosen and rejected begin with the prompt", _three(TEXT, TEXT),
          plain.strings_with_repeated_prompt, like=looks.answers_repeat_the_prompt, is_chat=False),
    Shape("implicit-prompt-strings", "chosen and rejected strings that begin with the same prompt", _two(TEXT),
          plain.strings_without_prompt, like=looks.answers_share_a_prompt, is_chat=False),
    # HH-RLHF
    Shape("hh-transcripts", "HH-RLHF: chosen and rejected transcripts", _two(TRANSCRIPT), plain.transcripts, is_transcript=True),
    Shape("hh-transcripts-with-prompt", "HH-RLHF transcripts beside a prompt that they repeat", _three(TEXT, TRANSCRIPT),
          plain.transcripts, is_transcript=True),
    Shape("hh-prompt-transcripts", "HH-RLHF, a prompt transcript with chosen and rejected answers", _three(TRANSCRIPT, TEXT),
          plain.prompt_transcript, is_transcript=True),
    # messages
    Shape("messages", "prompt, chosen and rejected messages", _three(MESSAGES, MESSAGES), conversations.messages),
    Shape("messages-and-strings", "prompt messages with chosen and rejected strings", _three(MESSAGES, TEXT), conversations.messages),
    Shape("messages-and-message", "prompt messages with one chosen and one rejected message", _three(MESSAGES, MESSAGE),
          conversations.messages),
    Shape("prompt-and-conversations", "a prompt string with chosen and rejected messages", _three(TEXT, MESSAGES),
          conversations.prompt_and_conversations),
    Shape("implicit-prompt-messages", "chosen and rejected conversations that begin alike", _two(MESSAGES),
          conversations.whole_conversations("chosen", "rejected")),
    Shape("ultrafeedback-binarized", "UltraFeedback binarized", {**_three(TEXT, MESSAGES), "messages": MESSAGES},
          conversations.prompt_and_conversations, marks={"score_chosen": ANY, "score_rejected": ANY}),
    Shape("argilla-cleaned", "UltraFeedback binarized and cleaned by Argilla", _three(TEXT, MESSAGES),
          conversations.prompt_and_conversations, marks={"chosen-rating": ANY, "rejected-rating": ANY}),
    Shape("orpo-dpo-mix", "orpo-dpo-mix-40k", _two(MESSAGES),
          conversations.prompt_and_conversations, marks={"source": ANY, "prompt": ANY, "question": ANY}, reads=("prompt",)),
    Shape("distilabel-dpo", "distilabel's DPO format beside the generations it was made of", _three(TEXT, MESSAGES),
          conversations.prompt_and_conversations, marks={"instruction": TEXT, "generations": LIST}),
    Shape("torchtune", "torchtune: chosen_conversations and rejected_conversations",
          {"chosen_conversations": MESSAGES, "rejected_conversations": MESSAGES},
          conversations.whole_conversations("chosen_conversations", "rejected_conversations")),
    Shape("ms-swift", "ms-swift: messages with a rejected_response", {"messages": MESSAGES, "rejected_response": TEXT},
          conversations.rejected_beside_messages),
    Shape("ms-swift-messages", "ms-swift: messages and rejected_messages", {"messages": MESSAGES, "rejected_messages": MESSAGES},
          conversations.whole_conversations("messages", "rejected_messages")),
    Shape("sharegpt-ranking", "LLaMA-Factory sharegpt ranking", _two(MESSAGE, conversations=MESSAGES),
          conversations.prompt_and_answers("conversations")),
    Shape("messages-ranking", "LLaMA-Factory ranking with messages", _two(MESSAGE, messages=MESSAGES),
          conversations.prompt_and_answers("messages")),
    Shape("openai-preference", "OpenAI preference format",
          {"input": OBJECT, "preferred_output": MESSAGES, "non_preferred_output": MESSAGES},
          conversations.openai("preferred_output", "non_preferred_output")),
    Shape("openai-preference-completions", "OpenAI preference format, as its API reference spells it",
          {"input": OBJECT, "preferred_completion": MESSAGES, "non_preferred_completion": MESSAGES},
          conversations.openai("preferred_completion", "non_preferred_completion")),
    # an instruction with answers as text
    Shape("system-prompt-chosen-rejected", "system, prompt, chosen and rejected strings", {"system": TEXT, **_three(TEXT, TEXT)},
          instructions.instruction("prompt")),
    Shape("orca-dpo-pairs", "orca_dpo_pairs: question, chosen, rejected, system", _two(TEXT, question=TEXT),
          instructions.instruction("question")),
    Shape("distilabel-orca", "distilabel orca pairs: input, chosen, rejected, rating, status", _two(TEXT, input=TEXT),
          instructions.distilabel_orca, reads=("rating", "status")),
    Shape("chosen-response", "instruction, chosen_response, rejected_response",
          {"instruction": TEXT, "chosen_response": TEXT, "rejected_response": TEXT},
          instructions.instruction("instruction", "chosen_response", "rejected_response")),
    Shape("instruction-chosen-rejected", "instruction, chosen and rejected strings", _two(TEXT, instruction=TEXT),
          instructions.alpaca, reads=("input", "history")),
    Shape("alpaca-ranking", "LLaMA-Factory alpaca ranking", _two(TEXT, instruction=TEXT, input=TEXT),
          instructions.alpaca, reads=("history",)),
    Shape("alpaca-output-pair", "LLaMA-Factory alpaca ranking, output = [chosen, rejected]", {"instruction": TEXT, "output": TEXTS},
          instructions.alpaca_output_pair, reads=("input", "history")),
    # ranked lists
    Shape("ranked-scores", "prompt and responses with scores, plain text", {"prompt": TEXT, "responses": TEXTS, "scores": NUMBERS},
          read_ranked=ranked.score_strings, is_chat=False),
    Shape("ranked-ranks", "prompt and responses with ranks, plain text", {"prompt": TEXT, "responses": TEXTS, "ranks": NUMBERS},
          read_ranked=ranked.rank_strings, is_chat=False),
    Shape("ranked-scores-messages", "prompt messages and responses with scores",
          {"prompt": MESSAGES, "responses": LIST, "scores": NUMBERS}, read_ranked=ranked.score_messages),
    Shape("ranked-ranks-messages", "prompt messages and responses with ranks",
          {"prompt": MESSAGES, "responses": LIST, "ranks": NUMBERS}, read_ranked=ranked.rank_messages),
    Shape("rrhf", "query and responses with scores", {"query": TEXT, "responses": TEXTS, "scores": NUMBERS},
          read_ranked=ranked.scored("query", "responses", "scores")),
    Shape("distilabel-ratings", "distilabel: instruction, generations, ratings",
          {"instruction": TEXT, "generations": TEXTS, "ratings": NUMBERS},
          read_ranked=ranked.scored("instruction", "generations", "ratings")),
    Shape("distilabel-rating", "distilabel: instruction, generations, rating",
          {"instruction": TEXT, "generations": TEXTS, "rating": NUMBERS},
          read_ranked=ranked.scored("instruction", "generations", "rating")),
    # labelled answers
    Shape("kto", "KTO: prompt, completion and label strings", {"prompt": TEXT, "completion": TEXT, "label": FLAG},
          read_labelled=labelled.strings, is_chat=False),
    Shape("kto-messages", "KTO: prompt and completion messages with a label",
          {"prompt": MESSAGES, "completion": LIST, "label": FLAG}, read_labelled=labelled.messages),
    Shape("labelled-messages", "messages with a label", {"messages": MESSAGES, "label": FLAG},
          read_labelled=labelled.conversation("messages", "label")),
    Shape("sharegpt-kto", "LLaMA-Factory sharegpt KTO", {"conversations": MESSAGES, "kto_tag": FLAG},
          read_labelled=labelled.conversation("conversations", "kto_tag")),
    Shape("messages-kto", "LLaMA-Factory KTO with messages", {"messages": MESSAGES, "kto_tag": FLAG},
          read_labelled=labelled.conversation("messages", "kto_tag")),
    Shape("alpaca-kto", "LLaMA-Factory alpaca KTO", {"instruction": TEXT, "output": TEXT, "kto_tag": FLAG},
          read_labelled=labelled.alpaca, reads=("input", "history")),
)
# fmt: on


def detect_shape(rows: Sequence[Row], *, columns: Mapping[str, str] | None = None) -> Shape:
    """The shape of the rows, from the names and the kinds of values of the first ones (64 are plenty), bound to the --columns mapping.

    DataError when no shape fits, or more than one: which of two readings is meant is never guessed.
    """
    return detection.detect(rows, columns or {}, SHAPES)
