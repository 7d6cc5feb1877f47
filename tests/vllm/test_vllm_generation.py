import pytest

from ropewalk.schemas.synth_recipe import parse_synth_recipe
from ropewalk.synth.cache import RequestCache
from ropewalk.synth.engine import EngineDead, Message
from ropewalk.synth.generation import Generation
from ropewalk.synth.recipe import Prompt, Sample
from ropewalk.synth.scores.words import count_words

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


class TwoParts:
    """A recipe of two steps, the second with the reply to the first in its prompt."""

    name, version = "two_parts", 1

    def expected_tokens(self, prompt):
        return 200

    async def __call__(self, prompt, ask):
        question = Message("user", prompt.prompt)
        begun = await ask("begin", [question], accept=lambda reply: reply.text, max_tokens=400)
        ended = await ask("end", [question, Message("assistant", begun)], accept=lambda r: r.text, max_tokens=400)
        text = begun + ended
        conversation = (question, Message("assistant", text))
        return Sample(conversation, output_words=count_words(text), language="en")


class Kept:
    """An engine that is kept running by others, and counts what it is asked."""

    def __init__(self, served, *, dead=False):
        self.served, self.dead, self.asked = served, dead, []

    async def start(self):
        return self.served.info

    async def generate(self, request):
        self.asked.append(request)
        if self.dead:
            raise EngineDead("nobody here")
        return await self.served.engine.generate(request)

    def count_tokens(self, text):
        return self.served.engine.count_tokens(text)

    def stats(self):
        return self.served.engine.stats()

    async def close(self):
        pass


async def rows(config, engine, cache_url, prompts):
    cache = RequestCache.open(cache_url)
    generation = Generation(TwoParts(), engine, cache, config)
    await generation.start()
    found = {row.prompt.id: row async for row in generation.run(prompts)}
    await generation.close()
    await cache.close()
    return found


def test_a_run_in_segments_again_from_its_cache_and_with_other_segments(tiny, tmp_path):
    prompts = [Prompt(str(i), f"Vado bito {i} puva kufe.") for i in range(40)]

    def config(segment):
        return parse_synth_recipe(
            {
                "output": str(tmp_path),
                "prompts": "p",
                "engine": {"name": "vllm", "model": tiny.info.model},
                # so that greedy random weights say this and that, and end after 15 to 30 tokens
                "sampling": {"temperature": 0.0, "repetition_penalty": 2.0, "extra": {"logit_bias": {"2": 1.5}}},
                "generation": {"segment_tokens": segment, "attempts": 1},
            }
        )

    def run(segment, engine, cache):
        found = tiny.run(rows(config(segment), engine, str(tmp_path / cache), prompts))
        assert set(found) == {prompt.id for prompt in prompts}
        return {key: row.sft or row.reject for key, row in found.items()}

    first = Kept(tiny)
    made = run(16, first, "cache")
    written = [row for row in made.values() if "messages" in row]
    assert written, made
    assert any(row["n_segments"] > 2 for row in written)  # seams were crossed
    assert all(row["engine"] == tiny.info.engine for row in written)

    again = Kept(tiny, dead=True)
    assert run(16, again, "cache") == made and again.asked == []

    whole = run(400, Kept(tiny), "other")
    compared = 0
    for key, row in made.items():
        if whole[key].get("reason") != "repetition":  # vLLM looks for it within one request: segments of 16 hide it
            assert row.get("messages") == whole[key].get("messages")
            compared += "messages" in row
    assert compared >= 3
