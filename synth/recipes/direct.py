"""Direct: the task is the prompt, the answer is the row. The baseline that ways of writing are measured against."""

from typing import ClassVar, Literal

from pydantic import Field

from ropewalk.synth.engine import Message
from ropewalk.synth.recipe import Ask, Prompt, Reply, Sample
from ropewalk.synth.recipes.writing import Writing
from ropewalk.synth.scores.words import tokens_of


class Direct(Writing):
    """One call a row, with the guards, scores and gates of every other recipe."""

    version: ClassVar[int] = 1

    name: Literal["direct"] = "direct"
    """Name of the recipe."""
    room: float = Field(default=2.0, ge=1)
    """Ceiling of the answer, as a multiple of the tokens that its words are likely to need."""

    async def __call__(self, prompt: Prompt, ask: Ask) -> Sample:
        """Makes one row."""
        task = await self.task(prompt, ask)

        def accept(reply: Reply) -> tuple[str, dict[str, float]]:
            text = reply.text.strip()
            return text, ask.guard(text, language=task.language, prompt=task.text, whole=True)

        tokens = tokens_of(task.aim, task.language)
        text, metrics = await ask(
            "write",
            [Message("user", task.text)],
            accept=accept,
            max_tokens=max(64, round(self.room * tokens)),
            expected_tokens=tokens,
            widen=True,
        )
        return await self.finish(task, text, ask, metrics=metrics)
