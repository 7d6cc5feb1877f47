import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest

from ropewalk.synth.engine import Repetition
from ropewalk.synth.engines import vllm_loop_guard
from ropewalk.synth.guards import loops

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

END = 2
PERIOD = 270  # longer than what vLLM's own detection is asked to look at
BLOCK = random.Random(1).sample(range(10, 1000), PERIOD)
PROSE = random.Random(2).choices(range(10, 1000), k=1280)


@pytest.fixture(scope="module")
def parrot():
    """A stand-in for a model that goes in circles: the tokens of a request's `says` are all but certain, in turn."""
    from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

    class Parrot(AdapterLogitsProcessor):
        def is_argmax_invariant(self):
            return False

        def new_req_logits_processor(self, params):
            says = (params.extra_args or {}).get("says")

            def speak(said, logits):
                logits[says[len(said) % len(says)]] += 1000.0
                return logits

            return speak if says else None

    return Parrot


@pytest.fixture
def speaking(served, tiny_model, parrot):
    """The tiny model, saying what it is told to."""
    return served(tiny_model, logits_processors=[parrot])


def says(tokens, **extra):
    return {"extra_args": {"says": tokens}, **extra}


def test_a_loop_of_a_long_block_is_stopped_and_nothing_else(speaking, make_request):
    most = 1100
    looping, unguarded, off, prose, late = speaking.answers(
        [
            make_request([20, 30], max_tokens=most, repetition=Repetition(), extra=says(BLOCK)),
            make_request([21, 30], max_tokens=most, repetition=Repetition(), extra=says(BLOCK, loop_guard=0)),
            make_request([22, 30], max_tokens=most, extra=says(BLOCK)),
            make_request([23, 30], max_tokens=most, repetition=Repetition(), extra=says(PROSE)),
            make_request(
                [24, 30], max_tokens=most, repetition=Repetition(), extra=says(PROSE[:90] + BLOCK * 9, loop_guard=100)
            ),
        ]
    )
    # three copies are a loop: 810 tokens, seen at the next multiple of 256; vLLM's own detection sees none of it
    assert (looping.finish_reason, looping.stop_reason) == ("repetition", "loop_guard")
    assert list(looping.token_ids) == (BLOCK * 4)[:1024]
    assert looping.usage.generated == 1024
    assert (late.finish_reason, list(late.token_ids)) == ("repetition", (PROSE[:90] + BLOCK * 3))
    for answer, said in ((unguarded, BLOCK * 5), (off, BLOCK * 5), (prose, PROSE)):
        assert (answer.finish_reason, list(answer.token_ids)) == ("length", said[:most])


def test_logprobs_stay_with_their_tokens(speaking, make_request):
    answer = speaking.answer(
        make_request([20, 30], max_tokens=800, repetition=Repetition(), logprobs=True, extra=says([50, 60, 70]))
    )
    assert answer.finish_reason == "repetition" and len(answer.token_ids) == len(answer.logprobs)


def test_an_end_of_its_own_is_no_repetition(speaking, make_request):
    at_a_look, between = speaking.answers(
        [
            make_request([20, 30], max_tokens=900, repetition=Repetition(), extra=says([*PROSE[:256], END])),
            make_request([20, 30], max_tokens=900, repetition=Repetition(), extra=says([*BLOCK, *BLOCK[:77], END])),
        ]
    )
    assert (at_a_look.finish_reason, len(at_a_look.token_ids)) == ("stop", 257)
    assert (between.finish_reason, len(between.token_ids)) == ("stop", PERIOD + 78)


def test_min_tokens_do_not_protect_a_loop(speaking, make_request):
    answer = speaking.answer(
        make_request([20, 30], max_tokens=1200, min_tokens=1150, repetition=Repetition(), extra=says(BLOCK))
    )
    assert (answer.finish_reason, len(answer.token_ids)) == ("repetition", 1024)


def params(every, *, end=END, structured=None):
    args = {vllm_loop_guard.KEY: every} if every is not None else None
    return SimpleNamespace(extra_args=args, eos_token_id=end, structured_outputs=structured)


def test_who_is_guarded():
    assert vllm_loop_guard.Guard.of(params(64)) == vllm_loop_guard.Guard(64, END)
    for unguarded in (params(None), params(0), params(64, end=None), params(64, structured=object())):
        assert vllm_loop_guard.Guard.of(unguarded) is None


@pytest.mark.parametrize("name", ["LoopGuardV1", "LoopGuardV2"])
def test_classes_are_found_by_name_as_vllm_and_pickle_do(name):
    from vllm.v1.sample.logits_processor import _load_logitsprocs_by_fqcns
    from vllm.v1.worker.gpu.sample.logits_processor import loader

    find = {"LoopGuardV1": _load_logitsprocs_by_fqcns, "LoopGuardV2": loader._load_v2_logitsprocs_by_fqcns}[name]
    (found,) = find([f"{vllm_loop_guard.__name__}:{name}"])
    assert found is getattr(vllm_loop_guard, name)
    assert pickle.loads(pickle.dumps(found)) is found
    with pytest.raises(ValueError, match="whole number"):
        found.validate_params(params("often"))
    with pytest.raises(AttributeError, match="LoopGuardV3"):
        vllm_loop_guard.LoopGuardV3  # noqa: B018


@pytest.mark.parametrize(("v2", "speculative", "name"), [(False, None, "V1"), (True, None, "V2"), (True, {}, None)])
def test_the_class_goes_with_the_model_runner(v2, speculative, name):
    config = SimpleNamespace(use_v2_model_runner=v2, speculative_config=speculative)
    path = vllm_loop_guard.class_path(config)
    assert path == (name and f"ropewalk.synth.engines.vllm_loop_guard:LoopGuard{name}")


def test_v1_follows_rows_as_the_batch_changes():
    """Against the batch itself: a list of requests, changed as vLLM changes its own."""
    import torch
    from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

    drawn = random.Random(5)
    guard = vllm_loop_guard.LoopGuardV1(None, "cpu", False)
    looping = [7] * 512
    batch: dict[int, tuple[bool, list[int]]] = {}  # row -> whether it is to be stopped, its tokens
    for _ in range(300):
        removed = [row for row in batch if drawn.random() < 0.2]
        for row in removed:
            del batch[row]
        added = []
        for row in drawn.sample([row for row in range(12) if row not in batch or drawn.random() < 0.1], k=2):
            asks, loops_now = drawn.random() < 0.7, drawn.random() < 0.7
            tokens = looping if loops_now else PROSE[:512]
            batch[row] = (asks and loops_now, tokens)
            added.append((row, params(256 if asks else None), [1], tokens))
        moved = []
        for _ in range(2):
            source, target = drawn.sample(range(12), k=2)
            if source not in batch:
                continue
            one_way = drawn.random() < 0.5
            moved.append((source, target, MoveDirectionality.UNIDIRECTIONAL if one_way else MoveDirectionality.SWAP))
            here, there = batch.pop(source), batch.pop(target, None)
            batch[target] = here
            if there is not None and not one_way:
                batch[source] = there
        guard.update_state(BatchUpdate(batch_size=len(batch), removed=removed, added=added, moved=moved))
        logits = guard.apply(torch.zeros(12, 9))
        stopped = {row for row in range(12) if torch.isneginf(logits[row]).any()}
        assert stopped == {row for row, (stop, _) in batch.items() if stop}
        for row in stopped:
            assert logits[row].argmax() == END and torch.isneginf(logits[row]).sum() == 8
    guard.update_state(None)


class Slots:
    """What vLLM's second model runner shows a logits processor, on the CPU: slots of requests, rows in any order."""

    def __init__(self, slots, length):
        import torch

        self.prompt_len = SimpleNamespace(np=np.zeros(slots, np.int32))
        self.all_token_ids = SimpleNamespace(gpu=torch.zeros(slots, length, dtype=torch.int32))

    def put(self, slot, prompt, answer):
        import torch

        tokens = torch.tensor([*prompt, *answer], dtype=torch.int32)
        self.all_token_ids.gpu[slot] = 3  # left over from whoever had the slot before
        self.all_token_ids.gpu[slot, : len(tokens)] = tokens
        self.prompt_len.np[slot] = len(prompt)

    def context(self, slots, lengths):
        import torch

        return SimpleNamespace(
            idx_mapping_np=np.array(slots, np.int32),
            expanded_idx_mapping=torch.tensor(slots, dtype=torch.int32),
            seq_lens_upper_bound_np=np.array(lengths, np.int32),
        )


def test_v2_reads_its_fields_as_vllm_declares_them():
    """The stand-in above has no field that vLLM's own classes lack."""
    import dataclasses

    from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

    assert set(vars(Slots(1, 1))) <= {field.name for field in dataclasses.fields(LogitsProcRequestState)}
    assert set(vars(Slots(1, 1).context([0], [1]))) <= {field.name for field in dataclasses.fields(LogitsContext)}


def test_v2_stops_loops_by_slot_on_stand_ins_of_vllms_state():
    """Never run on a GPU: this is the logic on CPU tensors."""
    import torch

    states = Slots(6, 4096)
    guard = vllm_loop_guard.LoopGuardV2(None, states)
    loop, prose = (BLOCK * 4)[:1024], PROSE[:1280]
    cases = {  # slot: (asks for the guard, prompt, answer, is to be stopped)
        0: (True, [5] * 300, loop, True),
        1: (True, [5] * 300, prose, False),
        2: (False, [5] * 3, loop, False),
        3: (True, BLOCK * 4, BLOCK[:256], False),  # the loop is in the prompt: not its fault
        4: (True, [5], loop[:1023], False),  # not due
        5: (True, [5] * 7, [], False),  # nothing said yet
    }
    for slot, (asks, prompt, answer, _) in cases.items():
        states.put(slot, prompt, answer)
        assert guard.add_request(slot, params(256 if asks else None)) is asks
    order = [3, 5, 0, 2, 4, 1]
    lengths = [len(cases[slot][1]) + len(cases[slot][2]) for slot in order]
    logits = torch.randn(6, 50)
    before = logits.clone()
    after = guard.apply(logits, states.context(order, lengths))
    assert after is logits
    for row, slot in enumerate(order):
        if cases[slot][3]:
            assert after[row].argmax() == END and torch.isneginf(after[row]).sum() == 49
        else:
            assert torch.equal(after[row], before[row])
    # the slot is used again by one who does not ask
    assert not guard.add_request(0, params(None))
    assert torch.isfinite(guard.apply(before.clone(), states.context(order, lengths))).all()


def test_the_engine_tells_the_guards_end_from_the_models():
    looped = [*(BLOCK * 4)[:1024], END]
    assert loops.find_loop(looped[:-1]) is not None
    assert vllm_loop_guard.ended_by_guard(looped, 256)
    assert not vllm_loop_guard.ended_by_guard(looped, 0)
    assert not vllm_loop_guard.ended_by_guard(looped[1:], 256)
    assert not vllm_loop_guard.ended_by_guard([*PROSE[:1280], END], 256)
    assert not vllm_loop_guard.ended_by_guard([END], 256)
