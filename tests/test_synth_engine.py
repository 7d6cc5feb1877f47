from ropewalk.synth.cache_key import cache_key
from ropewalk.synth.engine import EngineInfo, Message, Request, Sampling, revision_with
from ropewalk.synth.engines import local

REQUEST = Request("row", "write", (Message("user", "Write."),), Sampling(max_tokens=9))


def key(options):
    return cache_key(EngineInfo("e 1", "m", revision_with("abc", options, local.CHANGING)), REQUEST)


def test_options_that_change_answers_are_part_of_the_key_and_no_others():
    plain = key({})
    assert revision_with("abc", {}, local.CHANGING) == "abc"
    assert key({"INFERENCE_NUM_THREADS": 1, "num_kv_blocks": 9}) == plain
    found = [key({"KV_CACHE_PRECISION": p, "INFERENCE_NUM_THREADS": n}) for p in ("u8", "f16") for n in (1, 2)]
    assert found[0] == found[1] != found[2] == found[3]
    assert plain not in found


def test_a_class_among_the_options_is_told_by_its_name():
    names = ["logits_processors"]
    found = [revision_with("abc", {"logits_processors": [cls]}, names) for cls in (Sampling, Request, Sampling)]
    assert found[0] == found[2] != found[1]
    assert revision_with("abc", {"logits_processors": [Sampling]}, names).startswith("abc+")
