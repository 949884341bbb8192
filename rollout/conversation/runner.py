"""From a request to a trajectory: seed, sample, decode; with an environment, in turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollout.config import RolloutConfig, SamplingConfig
from rollout.conversation.calls import EnvironmentCalls, EnvironmentFailure
from rollout.conversation.conversation import ROLE, ChatTokens, Conversation
from rollout.environment import Environment, MakeEnvironment
from rollout.rewards.errors import one_line
from rollout.sampling.engine import Engine
from rollout.sampling.evaluation import EvaluationSampling
from rollout.seeding import stream_seed
from rollout.trajectory import FinishReason, Prompt, SampleRequest, Trajectory


class Runner:
    """Turns requests into trajectories with one engine.

    Args:
        engine: samples tokens.
        tokenizer: a Hugging Face tokenizer, for decoding.
        config: how training responses are sampled, and the limits of conversations.
        run_seed: first part of the name of every random stream.
        name: recorded in each trajectory.
        make_environment: None if one response is all there is, for any prompt.
        seeded: whether each response has a random stream of its own, or all share the engine's.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: Any,
        config: RolloutConfig,
        run_seed: int,
        name: str,
        make_environment: MakeEnvironment | None = None,
        seeded: bool = True,
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._chat = ChatTokens(tokenizer)
        self._config = config
        self._greedy = config.sampling.model_copy(update={"temperature": 0.0})
        self._run_seed = run_seed
        self._name = name
        self._make_environment = make_environment
        self._seeded = seeded

    async def sample(self, request: SampleRequest) -> Trajectory:
        """Sample one trajectory. Seeded, the same weights and request give the same one in any process."""
        return await self._run(request, self._config.sampling)

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        """The most likely one, for evaluation."""
        return await self._run(request, self._greedy)

    async def respond(self, request: SampleRequest, sampling: EvaluationSampling) -> Trajectory:
        """One sampled at another setting, for evaluation. Always seeded: what is compared should draw alike."""
        return await self._run(request, sampling)

    async def _run(self, request: SampleRequest, sampling: SamplingConfig) -> Trajectory:
        """One trajectory. An environment that fails gives :meth:`Trajectory.failed`."""
        try:
            environment = self._environment(request.prompt)
            if environment is None:
                return await self._single(request, sampling)
            calls = EnvironmentCalls(environment, self._config.environment_timeout_s)
            try:
                return await self._converse(request, sampling, calls)
            finally:
                await calls.close()
        except EnvironmentFailure as failure:
            return Trajectory.failed(request, str(failure), self._name)

    async def _single(self, request: SampleRequest, sampling: SamplingConfig) -> Trajectory:
        conversation = Conversation.begin(request, request.prompt.token_ids)
        await self._respond(conversation, sampling)
        return conversation.trajectory(self._name)

    async def _converse(self, request: SampleRequest, sampling: SamplingConfig, calls: EnvironmentCalls) -> Trajectory:
        """Turns until the environment is done or a limit is reached. What nobody responds to has no tokens."""
        prompt = request.prompt
        greeting = await calls.reset(prompt, self._seed(request, "environment"))
        opening = self._rendered(self._chat.opening, [*prompt.messages, *greeting]) if greeting else prompt.token_ids
        conversation = Conversation.begin(request, opening, greeting)
        if self._room(conversation) < 1:
            raise EnvironmentFailure(f"prompt and what reset returned have {len(opening)} tokens; none is left")
        finish_reason = None
        for turn in range(self._config.max_turns):
            text = await self._respond(conversation, sampling, turn)
            if conversation.completions[-1].finish_reason is FinishReason.ABORT:
                break  # nobody should answer half a response
            observation = await calls.step(text)
            conversation.messages += observation.messages
            if observation.done:
                break
            response = conversation.completions[-1].token_ids
            context = self._rendered(self._chat.between, response, observation.messages)
            # The context is left out then: a trajectory ends with a sampled token, and nobody would respond to it.
            if turn + 1 == self._config.max_turns or self._room(conversation) <= len(context):
                finish_reason = FinishReason.LENGTH
                break
            conversation.observe(context)
        return conversation.trajectory(
            self._name, finish_reason, messages=tuple(conversation.messages), outcome=calls.outcome()
        )

    async def _respond(self, conversation: Conversation, sampling: SamplingConfig, turn: int = 0) -> str:
        """Sample one response within what is left of the budget; returns its text."""
        seed = None
        stream = sampling.stream if isinstance(sampling, EvaluationSampling) else None
        if (self._seeded or stream is not None) and sampling.temperature > 0.0:
            purpose = "sampling" if stream is None else f"evaluation.{stream}"
            seed = self._seed(conversation.request, f"{purpose}.{turn}" if turn else purpose)
        room = self._room(conversation)
        # The engine would refuse what might not fit, even if the response came out short.
        if room < sampling.max_response_tokens:
            sampling = sampling.model_copy(update={"max_response_tokens": room})
        completion = await self._engine.generate(tuple(conversation.token_ids), sampling, seed)
        text: str = self._tokenizer.decode(list(completion.token_ids), skip_special_tokens=True)
        conversation.respond(completion, text)
        conversation.messages.append({"role": ROLE, "content": text})
        return text

    def _room(self, conversation: Conversation) -> int:
        """Tokens that the conversation may still grow by."""
        return self._config.longest_tokens - len(conversation.token_ids)

    def _environment(self, prompt: Prompt) -> Environment | None:
        if self._make_environment is None:
            return None
        try:
            return self._make_environment(prompt)
        except Exception as error:  # the user's code
            raise EnvironmentFailure(f"make_environment: {one_line(error)}") from error

    @staticmethod
    def _rendered(render: Callable[..., tuple[int, ...]], *arguments: Any) -> tuple[int, ...]:
        """Tokens of messages, which a chat template may refuse."""
        try:
            return render(*arguments)
        except Exception as error:  # templates raise what they like
            raise EnvironmentFailure(f"the chat template refuses its messages: {one_line(error)}") from error

    def _seed(self, request: SampleRequest, purpose: str) -> int:
        return stream_seed(self._run_seed, request.prompt.prompt_id, request.sample_index, purpose)
