"""What `dvpo check` lets pass runs, and what it refuses is refused by `dvpo train` in the same words."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray
from click.testing import CliRunner, Result

from actors.pools.reward_model_pool import RewardModelClient
from actors.workers.reward_model_worker import RewardModelWorker
from cluster.cli import main
from cluster.config.run_config import load_config
from cluster.run.reward_models import served_models, serving_options
from learner.reward_model.model import RewardModel
from tests.integration.shared_run import SharedRun
from tests.integration.walk import MODELS, REWARDS, SHAPES, Walk, walks, write_data, write_model
from tests.integration.whole_runs import WriteConfig, read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PROMPTS, SAMPLES, STEPS = 5, 2, 2
TRAINING = {
    "num_steps": STEPS,
    "prompts_per_step": PROMPTS,
    "samples_per_prompt": SAMPLES,
    "max_staleness": 0,
    "num_eval_prompts": 4,
}


class StrictServer(BaseHTTPRequestHandler):
    """A reward over HTTP that takes JSON as the standard has it: no NaN."""

    def do_POST(self) -> None:
        def refuse(word: str) -> NoReturn:
            raise ValueError(word)

        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            samples = json.loads(body, parse_constant=refuse)["samples"]
            status, answer = 200, {"scores": [float(len(sample["response"])) for sample in samples]}
        except ValueError as error:
            status, answer = 422, {"scores": [], "error": str(error)}  # type: ignore[dict-item]
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        """Nothing is printed."""


@dataclass(frozen=True)
class Services:
    """What rewards of the walk ask: the address of a server, and the folder of a reward model."""

    server: str
    judge: str
    scorer: Callable[[Path], RewardModelClient]


@pytest.fixture(scope="module")
def services(shared_run: SharedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    judge = tmp_path_factory.mktemp("judge") / "model"
    RewardModel.start_from(shared_run.model, 64, seed=0).save(judge)
    server = ThreadingHTTPServer(("127.0.0.1", 0), StrictServer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    workers: list[Any] = []

    def scorer(config_file: Path) -> RewardModelClient:
        """One worker for all runs."""
        if not workers:
            config = load_config(config_file)
            (model,) = served_models(config)
            options = serving_options(config, model.options, "cpu")
            workers.append(ray.remote(RewardModelWorker).options(num_cpus=0).remote(options))
        return RewardModelClient(workers)

    try:
        yield Services(f"http://127.0.0.1:{server.server_port}/", str(judge), scorer)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for worker in workers:
            ray.kill(worker)


def dvpo(*arguments: object) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="dvpo")


def errors(shown: Result) -> list[str]:
    """The messages of a command that refuses something."""
    assert "Traceback" not in shown.output
    lines = [line.removeprefix("error: ") for line in shown.output.splitlines() if line.startswith("error: ")]
    return [line for line in lines if "problems in the data; above are the first" not in line]


def written(walk: Walk, services: Services, start: str, write_config: WriteConfig, folder: Path) -> Path:
    """The configuration with its data and its model."""
    shape = SHAPES[walk.shape]
    given = {"SERVER": services.server, "JUDGE": services.judge}
    reward = {
        key: given.get(value, value) if isinstance(value, str) else value for key, value in REWARDS[walk.reward].items()
    }
    rollout = {"max_conversation_tokens": 60} if "environment" in (shape.options or {}) else {}
    return write_config(
        model={"path": str(write_model(folder, Path(start), MODELS[walk.model]))},
        data={"task": write_data(folder, shape)},
        reward={"functions": [reward]},
        algorithm={"preset": "grpo"},
        rollout=rollout,
        training=TRAINING,
    )


@pytest.mark.parametrize("walk", walks(), ids=str)
def test_what_check_says_is_what_the_run_does(
    walk: Walk, shared_run: SharedRun, services: Services, write_config: WriteConfig, tmp_path: Path
) -> None:
    config_file = written(walk, services, shared_run.model, write_config, tmp_path)
    mistakes = walk.mistakes()
    checked = dvpo("check", config_file)
    assert checked.exit_code == (2 if mistakes else 0), checked.output
    if mistakes:
        told = errors(checked)
        assert told and all(any(mistake in line for mistake in mistakes) for line in told), (mistakes, told)
        started = dvpo("train", config_file)
        assert (started.exit_code, errors(started)) == (2, told)
        assert not (tmp_path / "runs").exists()
        return
    scorers = {"reward.functions.0": services.scorer(config_file)} if walk.reward == "model" else {}
    (tmp_path / "run").mkdir()
    result = shared_run.train(config_file, tmp_path / "run", scorers)
    assert result["step"] == STEPS
    check_scores(walk, read_metrics(tmp_path / "run"))
    check_policy(tmp_path / "model", Path(result["checkpoint"]) / "policy")


def check_scores(walk: Walk, steps: list[dict[str, Any]]) -> None:
    """Every trajectory has a score, but for questions of which the check has said that they have none."""
    counts: Counter[str] = Counter()
    for step in steps:
        counts += Counter({key: int(value) for key, value in step.items() if key.startswith("reward/num_")})
    wanted = STEPS * PROMPTS * SAMPLES
    unanswered = SAMPLES if SHAPES[walk.shape].answers == "gap" else 0
    assert counts["reward/num_scored"] >= wanted
    assert counts["reward/num_errors"] <= STEPS * unanswered, counts
    assert counts["reward/num_abstained"] == counts["reward/num_invalid_scores"] == 0


def check_policy(start: Path, policy: Path) -> None:
    """What was saved can be loaded and sampled from, and what was only carried is as it was."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for name in ("generation_config.json", "chat_template.jinja"):
        assert (policy / name).read_bytes() == (start / name).read_bytes()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)
    tokens = tokenizer("1+2", return_tensors="pt", add_special_tokens=False)["input_ids"]
    assert model.generate(tokens, max_new_tokens=2, do_sample=False, pad_token_id=0).shape[1] > tokens.shape[1]


def test_the_walk_has_enough_of_each() -> None:
    everything = walks()
    runs = [walk for walk in everything if not walk.mistakes()]
    assert len(set(everything)) == 60
    assert len(runs) >= 25
    assert {walk.reward for walk in runs} == set(REWARDS) - {"unlicensed"}
    assert {walk.shape for walk in runs} == {name for name, shape in SHAPES.items() if not shape.error}
    assert {walk.model for walk in runs} == {name for name, model in MODELS.items() if not model.error}
    refused = {mistake for walk in everything for mistake in walk.mistakes()}
    assert len(refused) >= 7
