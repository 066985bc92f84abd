"""Settings of Axolotl that need no rule of their own: the reason, and the names it holds for; and those that Axolotl alone has."""

from __future__ import annotations

from collections.abc import Mapping

# fmt: off
NOT_NEEDED: Mapping[str, tuple[str, ...]] = {
    "the engine has kernels of its own": (
        "liger_rope", "liger_rms_norm", "liger_layer_norm", "liger_glu_activation", "liger_fused_linear_cross_entropy",
        "liger_cross_entropy", "cut_cross_entropy", "flash_attn_cross_entropy", "flash_attn_rms_norm", "flash_attn_fuse_qkv",
        "flash_attn_fuse_mlp", "eager_attention", "flex_attention", "s2_attention", "batch_flattening", "multipack_real_batches",
        "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_on_cpu",
    ),
    "rows are read and checked in one pass here": (
        "dataset_processes", "dataset_num_proc", "dataset_keep_in_memory", "shuffle_merged_datasets", "skip_prepare_dataset",
        "max_prompt_len", "min_sample_len",
    ),
    "the model's own config says what it is": (
        "is_falcon_derived_model", "is_qwen_derived_model", "base_model_config", "cls_model_config", "tokenizer_config",
        "tokenizer_use_fast", "tokenizer_legacy",
    ),
    "processes are wired by the trainer": ("device_map", "device", "ddp", "world_size", "ddp_backend"),
    "set it in the environment of the tracker": (
        "wandb_mode", "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name", "comet_workspace", "comet_project_name",
    ),
    "a step that is not finite changes nothing, and a run that does not fit says so before it starts": (
        "loss_watchdog_threshold", "loss_watchdog_patience", "gc_steps", "low_cpu_mem_usage", "max_memory", "gpu_memory_limit",
    ),
    "the same command goes on from its newest valid checkpoint": ("auto_resume_from_checkpoints",),
}

NOT_SUPPORTED: Mapping[str, tuple[str, ...]] = {
    "adapters are plain LoRA (use_peft, lora_r, lora_alpha, lora_dropout, lora_target_modules)": (
        "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform", "peft_init_lora_weights", "peft_layer_replication",
        "loraplus_lr_ratio", "lora_fan_in_fan_out",
    ),
    "learning_rate, lr_scheduler_type and warmup_steps are the whole course of the rate": (
        "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "lr_quadratic_warmup", "lr_groups", "embedding_lr", "embedding_lr_scale",
        "lisa_n_layers", "relora",
    ),
    "the loss is the published one": ("rpo_alpha", "cpo_alpha", "dpo_use_weighting", "dpo_loss_weights"),
    "the tokenizer's own tokens stand": ("tokens", "added_tokens_overrides", "resize_token_embeddings_to_32x", "eot_tokens"),
    "a system turn stands in the rows, or in the chat template": ("default_system_message",),
    "merge the adapter into its base first, and name the merged folder as model": ("lora_model_dir",),
    "products run in bfloat16 or float32": ("fp8",),
    "rows that stand twice are counted (orpo check) and trained twice": ("dataset_exact_deduplication",),
    "all weights are trained, or adapters alone": ("unfrozen_parameters",),
}

MARKS: tuple[str, ...] = (
    "base_model", "rl", "orpo_alpha", "sequence_len", "micro_batch_size", "adapter", "num_epochs", "datasets", "val_set_size",
    "sample_packing", "lora_target_linear", "dataset_prepared_path", "pad_to_sequence_len", "flash_attention", "lora_model_dir",
    "evals_per_epoch", "saves_per_epoch", "tokenizer_type", "train_on_inputs", "special_tokens", "eval_sample_packing", "wandb_watch",
    "lr_scheduler", "optimizer", "test_datasets", "strict", "s2_attention", "eot_tokens",
)
# fmt: on
