"""LLaVA: shared prefixes give what one pair at a time gives, through the library's own forward."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks_eval.models import load_models
from benchmarks_eval.models.llava import LlavaModel, load_llava
from benchmarks_eval.models.prompts import Template

TEXTS = [["a red ball", "cup", "look at the brown dog 's thing ?"], ["the blue thing ?"],
         ["a", "cup", "a red ball"], [], ["a yellow cup", "a pink cup"]]


def alone(model: LlavaModel, picture: Path | None, shown: str, text: str,
          ending: str = "") -> tuple[float, int]:
    """One pair through the processor and the whole model, logits at every position."""
    before = model.processor.tokenizer(shown.rstrip(" "))["input_ids"]
    if picture is None:
        inputs = model.processor.tokenizer(f"{shown}{text}{ending}", return_tensors="pt")
        start = len(before)
    else:
        inputs = model.processor(text=f"{shown}{text}{ending}", images=Image.open(picture),
                                 return_tensors="pt")
        start = len(before) - 1 + model.prefix_tokens
    with torch.no_grad():
        logits = model.model(**inputs).logits[0].double()
    ids = inputs["input_ids"][0]
    logprobs = logits[start - 1:-1].log_softmax(dim=-1).gather(1, ids[start:, None])
    return float(logprobs.sum()), len(ids) - start


@pytest.fixture(scope="module")
def llava(llava_folder: Path) -> LlavaModel:
    return load_llava(llava_folder, "cpu")


@pytest.fixture(scope="module")
def window(window_folder: Path) -> LlavaModel:
    return load_llava(window_folder, "cpu")


@pytest.mark.parametrize("which", ["llava", "window"])
@pytest.mark.parametrize("score_eos", [False, True])
@pytest.mark.parametrize("token_budget", [1, 60, 16_384])
def test_scores_are_those_of_one_pair_alone(which: str, score_eos: bool, token_budget: int,
                                            noise_pictures: list[Path],
                                            request: pytest.FixtureRequest,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    model: LlavaModel = request.getfixturevalue(which)
    monkeypatch.setattr(model, "token_budget", token_budget)
    features = model.image_features(noise_pictures)
    got = model.score_candidates(features, TEXTS, prompt="what is it ?", score_eos=score_eos)
    shown = {"llava": "USER: <image>\nwhat is it ? ASSISTANT: ",
             "window": "<image>\nwhat is it ? "}[which]
    sums: set[float] = set()
    for picture, texts, records in zip(noise_pictures, TEXTS, got, strict=True):
        assert len(records) == len(texts)
        for text, record in zip(texts, records, strict=True):
            total, count = alone(model, picture, shown, text, "</s>" if score_eos else "")
            assert record.num_tokens == count
            assert record.logprob_sum == pytest.approx(total, abs=1e-5)
            sums.add(round(record.logprob_sum, 3))
    assert len(sums) == 9  # pictures and texts all make a difference


def test_the_text_alone(llava: LlavaModel) -> None:
    got = llava.score_candidates(None, TEXTS[:2], prompt="what is it ?")
    for texts, records in zip(TEXTS[:2], got, strict=True):
        for text, record in zip(texts, records, strict=True):
            total, count = alone(llava, None, "USER: what is it ? ASSISTANT: ", text)
            assert (record.logprob_sum, record.num_tokens) == (pytest.approx(total, abs=1e-5),
                                                               count)


def test_prompt_tokens_are_never_scored(llava: LlavaModel, noise_pictures: list[Path]) -> None:
    features = llava.image_features(noise_pictures[:1])
    own = len(llava.processor.tokenizer.encode(" a red ball", add_special_tokens=False))
    for prompt in ("what is it ?", "look at the picture and describe it " * 2):
        (record,), = llava.score_candidates(features, [["a red ball"]], prompt=prompt)
        assert record.num_tokens == own
    (empty,), = llava.score_candidates(features, [[""]])
    assert (empty.logprob_sum, empty.num_tokens) == (0.0, 0)


def test_neither_order_nor_company_matters(llava: LlavaModel, noise_pictures: list[Path]) -> None:
    features = llava.image_features(noise_pictures[:2])
    texts = ["a red ball", "a cup", "the dog", "look at the brown dog 's thing ?"]
    one, two = llava.score_candidates(features, [texts, texts[::-1]])
    again, = llava.score_candidates(features[1:], [texts])
    for a, b in zip(two[::-1], again, strict=True):
        assert a.logprob_sum == pytest.approx(b.logprob_sum, abs=1e-5)
    assert one[0].logprob_sum != pytest.approx(two[-1].logprob_sum, abs=1e-3)


def test_the_tower_runs_only_for_features(llava: LlavaModel, noise_pictures: list[Path]) -> None:
    features = llava.image_features(noise_pictures[:2])
    calls: list[int] = []
    hook = llava.model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    try:
        llava.score_candidates(features, [["a"], ["b", "c"]])
        llava.generate(features, max_new_tokens=3)
        assert calls == []
        llava.image_features(noise_pictures[:2])
        assert calls == [1]
    finally:
        hook.remove()


def test_captions_are_the_librarys_greedy_ones(llava: LlavaModel,
                                               noise_pictures: list[Path]) -> None:
    got = llava.generate(llava.image_features(noise_pictures), prompt="look", max_new_tokens=6)
    tokenizer = llava.processor.tokenizer
    for picture, text in zip(noise_pictures, got, strict=True):
        inputs = llava.processor(text="USER: <image>\nlook ASSISTANT:",
                                 images=Image.open(picture), return_tensors="pt")
        ids = llava.model.generate(**inputs, max_new_tokens=6, do_sample=False)
        new = ids[0, inputs["input_ids"].shape[1]:]
        assert text == tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len(set(got)) > 1
    assert isinstance(llava.generate(None, max_new_tokens=3)[0], str)


def test_the_spec_gives_prompt_and_template(llava_folder: Path, tmp_path: Path,
                                            noise_pictures: list[Path]) -> None:
    file = tmp_path / "template.txt"
    file.write_text("look <image> {prompt} : {text}\n", encoding="utf-8")
    one, two = load_models([f"llava:{llava_folder}?prompt=what+is+it+?",
                            f"llava:{llava_folder}?template={file}"], "cpu")
    assert one.kind == "generative" and one.name != two.name
    features = one.generative.image_features(noise_pictures[:1])
    assert one.generative.score_candidates(features, [["a cup"]]) == \
        one.generative.score_candidates(features, [["a cup"]], prompt="what is it ?")
    total, _ = alone(two.handle, noise_pictures[0], "look <image> cup : ", "a dog")
    got = two.generative.score_candidates(features, [["a dog"]], prompt="cup")[0][0]
    assert got.logprob_sum == pytest.approx(total, abs=1e-5)
    assert one.handle.tower_hash == two.handle.tower_hash
    assert one.handle.weights_hash != two.handle.weights_hash


def test_templates_that_cannot_serve_are_named(window: LlavaModel, tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    for text in ("no picture {prompt} {text}", "<image> {text} {prompt}", "<image> {text}"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"t\.txt: a template holds '<image>' once"):
            Template(str(file), window.processor)
    with pytest.raises(ValueError, match="accepted: chat, plain, or a text file"):
        Template(str(tmp_path / "none"), window.processor)
    with pytest.raises(ValueError, match="no chat template"):
        Template("chat", window.processor)
    file.write_text("<image>{prompt}{text}", encoding="utf-8")
    with pytest.raises(ValueError, match="tokens of the prompt 'look at the r' change"):
        Template(str(file), window.processor).encode("look at the r", ["ed ball"], False)
    with pytest.raises(ValueError, match="2 times"):
        Template("plain", window.processor).encode("a <image>", ["cup"], True)


def test_hashes_follow_what_decides(llava_folder: Path, llava: LlavaModel, tmp_path: Path) -> None:
    def changed(name: str) -> LlavaModel:
        folder = tmp_path / name.replace("/", "-")
        shutil.copytree(llava_folder, folder)
        state = load_file(folder / "model.safetensors")
        (key,) = [k for k in state if k.endswith(name)]
        state[key].view(-1)[0] += 0.5
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return load_llava(folder, "cpu")

    head = changed("lm_head.weight")
    assert head.tower_hash == llava.tower_hash and head.weights_hash != llava.weights_hash
    tower = changed("encoder.layers.0.mlp.fc1.weight")
    assert tower.tower_hash != llava.tower_hash and tower.weights_hash != llava.weights_hash
    pixels = tmp_path / "pixels"
    shutil.copytree(llava_folder, pixels)
    (file,) = [f for f in pixels.glob("*processor*.json") if "image_mean" in f.read_text("utf-8")]
    text = file.read_text("utf-8")
    file.write_text(text.replace("0.48145466", "0.5"), encoding="utf-8")
    assert load_llava(pixels, "cpu").tower_hash != llava.tower_hash
    assert load_llava(llava_folder, "cpu").weights_hash == llava.weights_hash


def test_what_cannot_be_loaded_is_one_line(llava_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accepted: float32, bfloat16, float16"):
        load_llava(llava_folder, "cpu", dtype="int8")
    other = tmp_path / "other"
    shutil.copytree(llava_folder, other)
    config = other / "config.json"
    whole = config.read_text("utf-8")
    config.write_text(whole.replace('"model_type": "llava"', '"model_type": "llama"'), "utf-8")
    with pytest.raises(ValueError, match="model_type is 'llama', wanted: llava") as raised:
        load_llava(other, "cpu")
    assert "\n" not in str(raised.value)
    config.write_text(whole, "utf-8")
    state = load_file(other / "model.safetensors")
    gone = next(k for k in state if "multi_modal_projector" in k)
    save_file({k: v for k, v in state.items() if k != gone}, other / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(ValueError, match="1 weights are missing"):
        load_llava(other, "cpu")
    bare = tmp_path / "bare"
    shutil.copytree(llava_folder, bare)
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match="not a LLaVA that can be loaded") as raised:
        load_llava(bare, "cpu")
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="not a LLaVA"):
        load_llava(tmp_path, "cpu")


def test_the_same_tokens_score_exactly_the_same(llava: LlavaModel,
                                                noise_pictures: list[Path]) -> None:
    features = llava.image_features(noise_pictures[:1])
    (row,) = llava.score_candidates(features, [["a cup", "a red ball", "a cup", "cup"]])
    assert row[0] == row[2] and row[0] != row[1]
