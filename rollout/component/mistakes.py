"""Kinds of mistakes, each with the code that its messages end in, such as ``[config-unknown-key]``.

A class's sentence is its entry in ``docs/errors.md``, which is made from this file.
"""

from __future__ import annotations

from rollout.component.errors import UserError


class UnknownKey(UserError):
    """There is no such key here. The message names the nearest one, or where a key of that name does exist."""

    code = "config-unknown-key"


class MissingKey(UserError):
    """A key that has no default is not given."""

    code = "config-missing-key"


class WrongType(UserError):
    """A value is of another type than the key takes: a word for a number, one value for a list or a mapping."""

    code = "config-wrong-type"


class OutOfRange(UserError):
    """A number, or the length of a list or a text, is outside of its bounds. The message has the bound."""

    code = "config-out-of-range"


class WrongValue(UserError):
    """A value is of the right type, and none that the key can have. The message says which it can have."""

    code = "config-wrong-value"


class Conflict(UserError):
    """Values that are right by themselves do not go together, or one needs another. The message begins with one."""

    code = "config-conflict"


class GivenTwice(UserError):
    """The same thing is given twice, perhaps once under a former name or a short one. Keep one of them."""

    code = "config-given-twice"


class WithoutEffect(UserError):
    """An option is set that nothing reads as things are. Leave it out, or choose what reads it."""

    code = "config-no-effect"


class UnknownName(UserError):
    """There is no built-in part, algorithm, metric, split or column of this name. The message has those that there are.
    One of your own is written ``package.module:Class``."""

    code = "config-unknown-name"


class NotYaml(UserError):
    """The text is no YAML, is no mapping of keys to values, or is read differently by different readers of YAML."""

    code = "config-not-yaml"


class BadOverride(UserError):
    """``--set`` takes ``KEY=VALUE``, where KEY is a path such as ``training.num_steps`` or
    ``reward.functions.0.weight``, and VALUE is YAML."""

    code = "config-bad-override"


class VariableNotSet(UserError):
    """An environment variable that a value or a part refers to is not set, or a home folder is not known."""

    code = "config-variable-not-set"


class SecretInFile(UserError):
    """A value looks like a credential, and a configuration is copied to many places. The message never repeats it."""

    code = "config-secret"


class EngineArgument(UserError):
    """vLLM or DeepSpeed do not take this option, or dvpo sets it itself since its promises rest on it."""

    code = "config-engine-argument"


class BadArgument(UserError):
    """An argument or flag of a command is not of the right form, or does not go with another one."""

    code = "command-bad-argument"


class Usage(UserError):
    """The command line has no such command or option, or lacks an argument; ``--help`` after a command shows all."""

    code = "command-usage"


class NotFound(UserError):
    """There is no such file or folder. Paths are relative to the folder that the command is started in."""

    code = "file-not-found"


class Unreadable(UserError):
    """A file is there and cannot be read: permissions, a folder instead of a file, another format, a file cut off."""

    code = "file-unreadable"


class NotWritable(UserError):
    """A file or folder cannot be written, or there is something that is not to be replaced."""

    code = "file-not-writable"


class BadLine(UserError):
    """A line of a file is not what the command reads. The message has its number, and what the line should hold."""

    code = "file-bad-line"


class DataRow(UserError):
    """A row of a data file makes no question, pair or prompt. The message has file and row; the first five are told.
    ``data.task.rejects`` leaves such rows out and writes them down."""

    code = "data-bad-row"


class NoRows(UserError):
    """A file, split or data set has nothing in it that could be used."""

    code = "data-empty"


class TooFewQuestions(UserError):
    """The options of a task ask for more different questions, users or pairs than there are."""

    code = "data-too-few"


class PromptTooLong(UserError):
    """Prompts have more tokens than ``rollout.max_prompt_tokens``. Raise it, or leave long rows out."""

    code = "data-prompt-too-long"


class Unscorable(UserError):
    """A reward cannot use questions, mostly since it cannot read their references. The message has the first one."""

    code = "data-reward-cannot-use"


class ForeignData(UserError):
    """Another library cannot give its data set, or gives what is no question with one response."""

    code = "data-library"


class CannotImport(UserError):
    """``package.module:Name`` leads to nothing. Modules are found from the folder that the command is started in."""

    code = "code-cannot-import"


class WrongClass(UserError):
    """A class or function of yours is there, and lacks what it would need to be used as this part."""

    code = "code-wrong-class"


class PackageMissing(UserError):
    """An optional package is needed and is not installed. The message has the command that installs it."""

    code = "package-missing"


class DiskIsFull(UserError):
    """There is no space for a checkpoint or the ledger. What was there is as it was: make space and ``--resume``."""

    code = "disk-full"


class NoCheckpoint(UserError):
    """There is no complete checkpoint at this place; ``dvpo ledger`` and ``status.json`` say how far a run came."""

    code = "checkpoint-not-found"


class ModelFiles(UserError):
    """A model's folder lacks a file, or one of its files cannot be used. It has to be in Hugging Face format:
    ``config.json``, weights in safetensors, a tokenizer."""

    code = "model-files"


class ModelMismatch(UserError):
    """Two models, or a model and a tokenizer or a limit on tokens, do not belong together."""

    code = "model-mismatch"


class ModelUnsupported(UserError):
    """The model is of a kind that dvpo or one of its engines cannot work with here."""

    code = "model-unsupported"


class ChatTemplate(UserError):
    """The tokenizer's chat template is missing, or cannot render this conversation turn by turn."""

    code = "model-chat-template"


class RunExists(UserError):
    """The folder holds a run. Go on with it (``--resume``), delete it (``--overwrite``), or take another name."""

    code = "run-exists"


class NoRun(UserError):
    """There is no such run: neither a folder of this name, nor a run of it in ``runs/``."""

    code = "run-not-found"


class NothingRecorded(UserError):
    """The run is there, and has not written what the command reads, or not in a form that this version knows."""

    code = "run-nothing-recorded"


class RunDiffers(UserError):
    """What is to be gone on with was begun with other settings, by another version, or belongs to another run."""

    code = "run-differs"


class Unreachable(UserError):
    """Nobody answers at this address: Ray's head, its dashboard, or a service."""

    code = "cluster-unreachable"


class TokenRefused(UserError):
    """The cluster asks for a token, and refuses the one that was given. See [security.md](security.md)."""

    code = "cluster-token-refused"


class ClusterTooSmall(UserError):
    """The nodes of the cluster together, or each alone, have less than the run asks for, so it would wait forever."""

    code = "cluster-too-small"


class HostUnfit(UserError):
    """A host of the cluster lacks something that the run needs there: files of the model, shared storage, space, a
    clock that is right, a component that can be imported, a way to the others."""

    code = "cluster-host-unfit"


class JobRefused(UserError):
    """The cluster knows no such job, or does not take it."""

    code = "cluster-job"


class MachineTooSmall(UserError):
    """This machine has less CPUs, GPUs, memory, shared memory or disk than the run needs."""

    code = "machine-too-small"


class UselessReward(UserError):
    """The reward says too little for what is to be made of it, or its scores are outside of the range that is read."""

    code = "reward-useless"


class NothingScored(UserError):
    """Not one response could be scored, or no scores differ, so there is nothing to go by."""

    code = "reward-nothing-scored"
