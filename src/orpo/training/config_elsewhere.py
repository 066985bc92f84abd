"""Settings of other tools that have no counterpart here, and why. What would change the result is an error; what would not is a note."""

from __future__ import annotations

from collections.abc import Mapping

_ENGINE = "the engine chooses its own attention, batching and padding"
_LOADING = "rows are read and checked in one pass here"
_WANDB = "set WANDB_PROJECT, WANDB_NAME and the like in the environment"
_MEASURED = "speed and memory are always measured"
_KEPT = "the run directory holds what is needed; nothing there is overwritten"
_CUTTING = "prompt and answer have no limits of their own: max_length and overlong decide, and every row cut or dropped is counted"

IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "attn_implementation",
            "enable_liger_kernel",
            "eval_sample_packing",
            "flash_attn",
            "flash_attention",
            "group_by_length",
            "neat_packing",
            "packing",
            "pad_to_sequence_len",
            "padding_free",
            "per_device_eval_batch_size",
            "eval_batch_size",
            "sample_packing",
            "sdp_attention",
            "tf32",
            "torch_compile",
            "use_cache",
            "use_liger_kernel",
            "use_unsloth",
            "xformers_attention",
        ),
        _ENGINE,
    ),
    **dict.fromkeys(
        (
            "cache_dir",
            "dataloader_drop_last",
            "dataloader_num_workers",
            "dataloader_pin_memory",
            "dataset_num_proc",
            "dataset_prepared_path",
            "overwrite_cache",
            "preprocessing_num_workers",
            "remove_unused_columns",
            "streaming",
        ),
        _LOADING,
    ),
    **dict.fromkeys(("wandb_project", "wandb_name", "wandb_run_id", "wandb_entity", "wandb_watch", "wandb_log_model", "run_name"), _WANDB),
    **dict.fromkeys(("include_num_input_tokens_seen", "include_tokens_per_second", "log_level", "logging_first_step"), _MEASURED),
    **dict.fromkeys(("logging_dir", "overwrite_output_dir", "plot_loss", "save_safetensors", "save_only_model", "strict"), _KEPT),
    **dict.fromkeys(
        ("max_completion_length", "max_prompt_length", "prompt_max_length", "response_max_length", "truncation_mode"), _CUTTING
    ),
    "ddp_find_unused_parameters": "processes are wired by the trainer",
    "ddp_timeout": "processes are wired by the trainer",
    "do_eval": "held-out pairs are evaluated whenever there are any (eval_data or holdout)",
    "do_train": "orpo train trains",
    "gradient_checkpointing_kwargs": "recomputation is always the non-reentrant one",
    "is_llama_derived_model": "the model's own config says what it is",
    "is_mistral_derived_model": "the model's own config says what it is",
    "model_type": "the model's own config says what it is",
    "tokenizer_type": "the model's own config says what it is",
    "use_fast_tokenizer": "the tokenizer's own config says what it is",
}

_PUSH = "training never pushes: nothing leaves this machine"
_SECRET = "secrets do not belong in a configuration: set HF_TOKEN or the tracker's own variable in the environment, and change this one"
_LOSS = "the loss is the published one; its options are those of the objective"
_REFERENCE = "the reference is the model as it was before training; reference: adapter, copy or precomputed says how it is read"
_PROCESSES = "training on several processes by a sharding library is not offered"
_EPOCHS = "intervals are counted in steps: use save_steps, eval_steps and logging_steps"
_INITIAL = "the model is trained as it is"
_ADAPTER = "adapters are plain LoRA (use_peft, lora_r, lora_alpha, lora_dropout, lora_target_modules)"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "push_dataset_to_hub"), _PUSH),
    **dict.fromkeys(("hub_token", "hf_token", "token", "api_key", "wandb_api_key", "use_auth_token"), _SECRET),
    **dict.fromkeys(("label_smoothing_factor", "loss_type", "neftune_noise_alpha", "pref_ftx", "loss_weights"), _LOSS),
    **dict.fromkeys(("ref_model", "reference_model", "ref_model_name_or_path", "precompute_ref_log_probs", "sync_ref_model"), _REFERENCE),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "tensor_parallel_size", "context_parallel_size"), _PROCESSES),
    **dict.fromkeys(
        ("save_strategy", "eval_strategy", "evaluation_strategy", "logging_strategy", "saves_per_epoch", "evals_per_epoch"), _EPOCHS
    ),
    **dict.fromkeys(("use_dora", "use_rslora", "pissa_init", "modules_to_save", "lora_modules_to_save", "additional_target"), _ADAPTER),
    **dict.fromkeys(("freeze_trainable_layers", "unfrozen_parameters", "resize_vocab", "new_special_tokens"), _INITIAL),
    "early_stopping_patience": "a run has a fixed length: use max_steps or num_train_epochs",
    "load_best_model_at_end": "the last model is kept; the report shows where held-out figures turned",
    "lr_scheduler_kwargs": "the schedules offered need no settings of their own",
    "max_samples": "make a smaller file, or use max_steps",
    "pure_bf16": "weights stay float32, so that small updates are not lost; dtype: bfloat16 runs the matrix products in it",
    "resume_from_checkpoint": "the same command with the same output_dir resumes from its newest valid checkpoint",
    "train_on_inputs": "use nll_over: prompt+completion",
    "train_on_prompt": "use nll_over: prompt+completion",
    "trust_remote_code": "code from a model folder is never run",
}

LATER: Mapping[str, str] = {
    "load_in_8bit": "8-bit weights are planned; load_in_4bit holds them in 4 bits, use_peft alone in bfloat16",
    "num_processes": "launching several processes is planned",
}
"""Names that are already given to a setting that comes later."""

_OFF = frozenset({"", "0", "no", "none", "false", "off"})


def changes_nothing(name: str, value: object) -> bool:
    """True when `value` switches the setting `name` off, or asks for what happens anyway: then nothing is lost by leaving it out."""
    if name == "num_processes":
        return value == 1 and not isinstance(value, bool)
    if name.endswith("_strategy") and value == "steps":
        return True
    return value in (False, (), []) or (isinstance(value, str) and value.lower() in _OFF)
