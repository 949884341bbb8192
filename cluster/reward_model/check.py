"""Whether a reward model can be loaded and served. Loads its configuration and tokenizer only, never its weights."""

from __future__ import annotations

from cluster.config.model_folder import load_model_config, max_positions
from cluster.config.run_config import RunConfig
from cluster.run.reward_models import ServedModel
from learner.reward_model.model import NotARewardModel, require_reward_model
from rollout.component.mistakes import ModelFiles, ModelMismatch
from rollout.data.prompts import load_tokenizer


def check_reward_model(model: ServedModel) -> None:
    """Check model folder or hub id, tokenizer and lengths.

    Raises:
        UserError: no such model, not a sequence classifier with one label, or tokenizer and model do not fit.
    """
    key, options = f"{model.place}.path", model.options
    found = load_model_config(options.path, key)
    try:
        require_reward_model(found)
    except NotARewardModel as error:
        raise ModelFiles(f"{key}: {options.path!r} is no reward model: {error}") from error
    tokenizer = load_tokenizer(options.path, key=key)
    text = found.get_text_config()
    if len(tokenizer) > text.vocab_size:
        raise ModelMismatch(
            f"{key}: the tokenizer of {options.path!r} has {len(tokenizer)} tokens, its model only {text.vocab_size}; "
            "they do not belong together"
        )
    if found.pad_token_id is None and tokenizer.pad_token_id is None:
        raise ModelFiles(f"{key}: {options.path!r} has no padding token; set pad_token_id in its config.json")
    positions = max_positions(found)
    if positions is not None and positions < options.max_tokens:
        raise ModelMismatch(
            f"{model.place}.max_tokens: {options.max_tokens} is more than the {positions} positions of the model "
            f"{options.path!r}"
        )


def reward_model_warnings(config: RunConfig, model: ServedModel) -> list[str]:
    """What will work but probably not as wished."""
    longest = config.rollout.max_prompt_tokens + config.rollout.sampling.max_response_tokens
    if model.options.max_tokens >= longest:
        return []
    return [
        f"{model.place}.max_tokens: {model.options.max_tokens}; a trajectory may have {longest} tokens "
        "(rollout.max_prompt_tokens and rollout.sampling.max_response_tokens), and the reward abstains from what is "
        "longer"
    ]
