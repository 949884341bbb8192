"""Causes in the prompts: their form, how hard they are, how often they come, and whether they were seen before."""

from __future__ import annotations

import math
import re
from statistics import fmean

from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.diagnosis.signals import held_out, reward_scale, share, split_thirds, true_score
from cluster.report.run_record import RunRecord
from cluster.report.samples import LoggedTrajectory

_MARK = re.compile(
    r"<\|(?:im_start|im_end|user|assistant|system|start_header_id|eot_id|end)\|>|\[/?INST\]|<(?:start|end)_of_turn>"
    r"|(?m:^\s*(?:###\s*)?(?:User|Human|Assistant)\s*:)"
)
"""What chat templates write between turns; in a response it is a turn that the model went on with."""


class BrokenTemplate(Rule):
    """A chat template that hides the question, or does not say whose turn it is."""

    cause, title = "broken_template", "The chat template is broken"
    why = (
        "The template is tried on one question, which must come through once and be followed by a mark of the model's "
        "turn. In responses, marks of turns in one of ten, or nothing at all in every second one, are a model that "
        "does not know where it is."
    )
    consequences = frozenset({"too_hard", "truncation", "lr_too_low", "lr_too_high", "entropy_collapse", "length_bias"})
    MARKED, EMPTY, LEAST = 0.1, 0.5, 20

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        template, evidence, strength = run.template, [], 0.9
        if template is not None and not template.error:
            if template.num_questions != 1:
                text = f"the question is in the prompt {template.num_questions} times"
                evidence.append(Evidence(source="chat template of model.path", text=text))
                strength = 0.98
            elif not template.opens_turn:
                text = "nothing follows the question, so nothing says that it is the model's turn"
                if self._struggles(run):
                    evidence.append(Evidence(source="chat template of model.path", text=text))
        early = split_thirds(run)[0] or list(run.trajectories)
        if len(early) >= self.LEAST:
            marked = share(early, lambda s: bool(_MARK.search(s.response)))
            empty = share(early, lambda s: not s.response.strip())
            twice = share(early, lambda s: any(_MARK.search(str(m.get("content", ""))) for m in s.prompt))
            if marked >= self.MARKED:
                text = f"{marked:.0%} of early responses go on with another turn: {_first_mark(early)!r}"
                evidence.append(Evidence(source="trajectories/", text=text))
            if empty >= self.EMPTY:
                evidence.append(Evidence(source="trajectories/", text=f"{empty:.0%} of early responses are empty"))
            if twice >= self.EMPTY:
                text = f"{twice:.0%} of prompts have marks of turns inside a message: the template is applied twice"
                evidence.append(Evidence(source="trajectories/", text=text))
        if not evidence:
            if template is None and not run.trajectories:
                return self.unknown("neither the model's folder nor trajectories are here")
            return None
        return self.found(
            "What the model reads is not the conversation that it was trained on.",
            evidence,
            [
                "see what a prompt looks like: AutoTokenizer.from_pretrained(MODEL).apply_chat_template([{'role': "
                "'user', 'content': 'Hi'}], tokenize=False, add_generation_prompt=True)",
                "take chat_template.jinja from the model's own release; give messages in data, not a text with marks",
            ],
            strength,
        )

    def _struggles(self, run: RunRecord) -> bool:
        """Whether it shows: responses are cut, or right answers are rare at the start."""
        first = held_out(run).first
        return run.metrics.early("rollout/truncated_frac") >= 0.2 or first <= 0.1


def _first_mark(samples: list[LoggedTrajectory]) -> str:
    found = (_MARK.search(sample.response) for sample in samples)
    return next(match.group(0).strip() for match in found if match is not None)


class TooEasy(Rule):
    """Prompts that were solved before training began."""

    cause, title = "too_easy", "The prompts are too easy"
    why = (
        "Nine answers in ten are right at the start: of eight samples of one prompt, all are then right in two cases "
        "of five."
    )
    consequences = frozenset({"lr_too_low", "critic_collapse"})
    SOLVED = 0.9

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        key, curve = true_score(run)
        if not len(curve):
            return self.unknown("no rewards were recorded")
        first = fmean(curve.early) / reward_scale(run)
        if first < self.SOLVED:
            return None
        evidence = [Evidence(source=key, text=f"the mean reward is {first:.2f} in the first steps already")]
        same = run.metrics.early("reward/zero_variance_group_frac")
        if math.isfinite(same):
            text = f"{same:.0%} of prompts have samples that all score the same: nothing to compare"
            evidence.append(Evidence(source="reward/zero_variance_group_frac", text=text))
        return self.found(
            "The starting model is nearly always right, so there is little to learn.",
            evidence,
            ["take harder prompts, or leave out those that the starting model always solves (docs/data.md)"],
            0.6,
        )


class TooHard(Rule):
    """Prompts of which hardly any answer is right."""

    cause, title = "too_hard", "The prompts are too hard"
    why = (
        "Fewer than one answer in eight is right, and it does not get better: of eight samples of one prompt, usually "
        "not one shows the way."
    )
    consequences = frozenset({"lr_too_low", "critic_collapse"})
    RARE = 0.125

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        key, curve = true_score(run)
        if not len(curve):
            return self.unknown("no rewards were recorded")
        scale = reward_scale(run)
        first, last = fmean(curve.early) / scale, fmean(curve.late) / scale
        risen = curve.rise / scale > max(0.05, 3.0 * curve.rise_error / scale)
        # Scores below 0 have no such floor, and what fell to it is another cause.
        if min(curve.values) < 0.0 or not 0.0 <= first < self.RARE or last >= self.RARE or risen:
            return None
        evidence = [Evidence(source=key, text=f"the mean reward is {first:.3f} at the start and {last:.3f} at the end")]
        same = run.metrics.late("reward/zero_variance_group_frac")
        if math.isfinite(same):
            text = f"{same:.0%} of prompts have samples that all score the same: nothing to compare"
            evidence.append(Evidence(source="reward/zero_variance_group_frac", text=text))
        score = held_out(run)
        if score.number:
            evidence.append(
                Evidence(source=score.key, text=f"held-out accuracy {score.first:.3f}, now {score.last:.3f}")
            )
        return self.found(
            "Hardly any answer is right, so hardly any is rewarded.",
            evidence,
            [
                "take easier prompts first, or a starting model that sometimes solves them",
                "more samples of each prompt: --set training.samples_per_prompt=16",
            ],
            0.55,
        )


class LeakingEvaluation(Rule):
    """Held-out questions that are trained on."""

    cause, title = "leaking_evaluation", "Evaluation questions are trained on"
    why = (
        "One held-out question in a hundred that is a training question too: an accuracy is not about new questions "
        "then."
    )
    SHARE = 0.01
    _TOLD = re.compile(r"data\.task\.eval\.(\S+): (\d+) of (\d+) questions are training questions too")

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        evidence, worst = [], 0.0
        for event in run.events_of("data"):
            match = self._TOLD.search(str(event.get("text", "")))
            if match and int(match[2]) >= self.SHARE * int(match[3]):
                worst = max(worst, int(match[2]) / int(match[3]))
                evidence.append(Evidence(source="events.jsonl", text=str(event["text"])))
        if not evidence:
            return None
        return self.found(
            "Held-out accuracy measures what was learnt by heart.",
            evidence,
            ["remove these questions from the training file, and evaluate again: dvpo eval CHECKPOINT --config CONFIG"],
            0.6 + 0.3 * worst,
        )


class PromptsRepeated(Rule):
    """Few prompts, learnt by heart."""

    cause, title = "prompts_repeated", "The same prompts come too often"
    why = (
        "Each prompt trained on four times or more, and a score on training prompts that is .1 above the held-out one "
        "and has grown apart by as much: what is learnt then is these prompts."
    )
    REPEATS, APART = 4.0, 0.1

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        repeats = self._repeats(run)
        if repeats is None:
            return self.unknown("how often prompts came was not recorded")
        key, curve = true_score(run)
        score = held_out(run)
        if repeats < self.REPEATS or not len(curve) or score.number < 2:
            return None
        scale = reward_scale(run)
        first, last = fmean(curve.early) / scale - score.first, fmean(curve.late) / scale - score.last
        if last - first < self.APART + score.error / 2 or last < self.APART:
            return None
        return self.found(
            "The policy gets better on the prompts that it trains on, and not on others.",
            [
                Evidence(source="ledger.sqlite", text=f"each prompt was trained on {repeats:.1f} times"),
                Evidence(
                    source=f"{key}, {score.key}",
                    text=f"training minus held-out: {first:+.2f} at the start, {last:+.2f} now",
                ),
            ],
            ["more prompts, or fewer steps: stop where held-out accuracy is best (training.num_steps)"],
            0.6 + min(0.3, last - first),
        )

    def _repeats(self, run: RunRecord) -> float | None:
        if run.ledger is not None:
            return run.ledger.repeats
        number, per_step = run.settings.get("data.task.num_train"), run.settings.get("training.prompts_per_step")
        if isinstance(number, int) and isinstance(per_step, int) and number:
            return run.metrics.last_step * per_step / number
        return None
