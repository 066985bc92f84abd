"""Settings of other tools that have no counterpart here, and why. What would change the result is an error; what would not is a note."""

from __future__ import annotations

from collections.abc import Mapping

_ENGINE = "the engine chooses its own attention, batching and padding"
_RANKS = "processes are wired by the trainer"
_LOADING = "rows are read and checked in one pass here"
_WANDB = "set WANDB_PROJECT, WANDB_NAME and the like in the environment"
_MEASURED = "speed and memory are always measured"
_KEPT = "the run directory holds what is needed; nothing there is overwritten"
_TRACKIO = "set it in the environment of the tracker"
_LAST = "the last model is kept; the report shows where held-out figures turned"
_CUTTING = "prompt and answer have no limits of their own: max_length and overlong decide, and every row cut or dropped is counted"

IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "activation_offloading",
            "attn_implementation",
            "auto_find_batch_size",
            "enable_liger_kernel",
            "eval_sample_packing",
            "flash_attn",
            "flash_attention",
            "eval_packing",
            "group_by_length",
            "length_column_name",
            "liger_kernel_config",
            "neat_packing",
            "packing",
            "packing_strategy",
            "pad_to_multiple_of",
            "pad_to_sequence_len",
            "pad_token",
            "padding_free",
            "padding_value",
            "per_device_eval_batch_size",
            "eval_accumulation_steps",
            "eval_batch_size",
            "precompute_ref_batch_size",
            "sample_packing",
            "sdp_attention",
            "tf32",
            "torch_compile",
            "torch_compile_backend",
            "torch_compile_mode",
            "torch_empty_cache_steps",
            "use_cache",
            "use_liger_kernel",
            "use_unsloth",
            "xformers_attention",
        ),
        _ENGINE,
    ),
    **dict.fromkeys(
        (
            "accelerator_config",
            "cache_dir",
            "dataloader_drop_last",
            "dataloader_in_order",
            "dataloader_multiprocessing_context",
            "dataloader_num_workers",
            "dataloader_persistent_workers",
            "dataloader_pin_memory",
            "dataloader_prefetch_factor",
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
    **dict.fromkeys(("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _TRACKIO),
    **dict.fromkeys(
        (
            "batch_eval_metrics",
            "debug",
            "disable_tqdm",
            "eval_do_concat_batches",
            "eval_use_gather_object",
            "include_for_metrics",
            "include_num_input_tokens_seen",
            "include_tokens_per_second",
            "label_names",
            "log_level",
            "log_level_replica",
            "log_on_each_node",
            "logging_first_step",
            "logging_nan_inf_filter",
            "prediction_loss_only",
            "skip_memory_metrics",
        ),
        _MEASURED,
    ),
    **dict.fromkeys(
        (
            "enable_jit_checkpoint",
            "ignore_data_skip",
            "logging_dir",
            "overwrite_output_dir",
            "plot_loss",
            "restore_callback_states_from_checkpoint",
            "save_on_each_node",
            "save_only_model",
            "save_safetensors",
            "strict",
        ),
        _KEPT,
    ),
    **dict.fromkeys(
        ("max_completion_length", "max_prompt_length", "prompt_max_length", "response_max_length", "truncation_mode"), _CUTTING
    ),
    **dict.fromkeys(
        (
            "average_tokens_across_devices",
            "ddp_backend",
            "ddp_broadcast_buffers",
            "ddp_bucket_cap_mb",
            "ddp_find_unused_parameters",
            "ddp_static_graph",
            "ddp_timeout",
            "ignore_bias_buffers",
            "local_rank",
        ),
        _RANKS,
    ),
    **dict.fromkeys(("bf16_full_eval", "fp16_full_eval"), "held-out pairs are computed in the dtype of training"),
    **dict.fromkeys(("eval_delay", "eval_on_start"), "held-out pairs are evaluated before the first step and after the last"),
    **dict.fromkeys(("greater_is_better", "metric_for_best_model"), _LAST),
    **dict.fromkeys(("ref_model_mixup_alpha", "ref_model_sync_steps"), "the reference stays the model as it was before training"),
    "activation_checkpointing_kwargs": "recomputation is always the non-reentrant one",
    "do_eval": "held-out pairs are evaluated whenever there are any (eval_data or holdout)",
    "do_predict": "orpo eval measures a trained model on other pairs",
    "do_train": "orpo train trains",
    "full_determinism": "a run on a CPU is the same to the last bit",
    "generate_during_eval": "the report shows replies before and after training (num_samples)",
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
_PROCESSES = "the settings of a sharding library are not read: sharding: fsdp divides weights (FSDP2 of torch); DeepSpeed is not offered"
_EPOCHS = "intervals are counted in steps: use save_steps, eval_steps and logging_steps"
_INITIAL = "the model is trained as it is"
_OPTIMIZER = "the optimizers offered have no further settings"
_ADAPTER = "adapters are plain LoRA (use_peft, lora_r, lora_alpha, lora_dropout, lora_target_modules)"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision"), _PUSH),
    "push_dataset_to_hub": _PUSH,
    **dict.fromkeys(("hub_token", "hf_token", "token", "api_key", "wandb_api_key", "use_auth_token"), _SECRET),
    **dict.fromkeys(
        (
            "discopop_tau",
            "f_alpha_divergence_coef",
            "f_divergence_type",
            "label_smoothing_factor",
            "ld_alpha",
            "loss_type",
            "loss_weights",
            "neftune_noise_alpha",
            "pref_ftx",
            "router_aux_loss_coef",
            "use_weighting",
        ),
        _LOSS,
    ),
    **dict.fromkeys(("adam_epsilon", "optim_args", "optim_target_modules"), _OPTIMIZER),
    **dict.fromkeys(("ref_model", "reference_model", "ref_model_name_or_path", "precompute_ref_log_probs", "sync_ref_model"), _REFERENCE),
    **dict.fromkeys(("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "tensor_parallel_size", "context_parallel_size"), _PROCESSES),
    "parallelism_config": _PROCESSES,
    **dict.fromkeys(
        ("save_strategy", "eval_strategy", "evaluation_strategy", "logging_strategy", "saves_per_epoch", "evals_per_epoch"), _EPOCHS
    ),
    **dict.fromkeys(("use_dora", "use_rslora", "pissa_init", "modules_to_save", "lora_modules_to_save", "additional_target"), _ADAPTER),
    **dict.fromkeys(("lora_target_parameters", "lora_task_type"), _ADAPTER),
    **dict.fromkeys(("freeze_trainable_layers", "unfrozen_parameters", "resize_vocab", "new_special_tokens"), _INITIAL),
    "device": "a run takes the GPU that is there; CUDA_VISIBLE_DEVICES=1 chooses one, an empty CUDA_VISIBLE_DEVICES hides all",
    "early_stopping_patience": "a run has a fixed length: use max_steps or num_train_epochs",
    "data_seed": "one seed draws the order of pairs, dropout and samples: use seed",
    "is_encoder_decoder": "decoder-only language models are trained",
    "load_best_model_at_end": _LAST,
    "lr_scheduler_kwargs": "the schedules offered need no settings of their own",
    "model_revision": "a model is named by folder or Hub id: fetch the revision (hf download MODEL --revision R) and name its folder",
    "max_samples": "make a smaller file, or use max_steps",
    "pure_bf16": "weights stay float32, so that small updates are not lost; dtype: bfloat16 runs the matrix products in it",
    "resume_from_checkpoint": "the same command with the same output_dir resumes from its newest valid checkpoint",
    "train_on_inputs": "use nll_over: prompt+completion",
    "train_on_prompt": "use nll_over: prompt+completion",
    "train_sampling_strategy": "the order of pairs is drawn anew in each epoch, from seed",
    "trust_remote_code": "code from a model folder is never run",
    "use_cpu": "a run takes the GPU that is there; an empty CUDA_VISIBLE_DEVICES hides it",
}

LATER: Mapping[str, str] = {
    "load_in_8bit": "8-bit weights are planned; load_in_4bit holds them in 4 bits, use_peft alone in bfloat16",
}
"""Names that are already given to a setting that comes later."""

AT_REST: Mapping[str, tuple[object, ...]] = {
    "adam_epsilon": (1e-8,),
    "discopop_tau": (0.05,),
    "f_alpha_divergence_coef": (0.5, 1.0),
    "f_divergence_type": ("reverse_kl",),
    "hub_strategy": ("every_save",),
    "lora_task_type": ("CAUSAL_LM",),
    "model_revision": ("main",),
    "train_sampling_strategy": ("random",),
}
"""Values that ask for what happens anyway, beside those that switch a setting off."""

_OFF = frozenset({"", "0", "no", "none", "false", "off"})


def changes_nothing(name: str, value: object) -> bool:
    """True when `value` switches the setting `name` off, or asks for what happens anyway: then nothing is lost by leaving it out."""
    if name.endswith("_strategy") and value == "steps":
        return True
    if name in AT_REST and not isinstance(value, bool):
        return value in AT_REST[name]
    return value in (False, (), [], {}) or (isinstance(value, str) and value.lower() in _OFF)
