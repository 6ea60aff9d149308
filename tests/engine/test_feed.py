"""Steps with fewer samples than shares: every rank runs, and none adds anything to the sum."""

from __future__ import annotations

import pytest
import torch
from support.shapes import tiny_config, write_shapes

from engine.assemble import assemble
from engine.config import parse_config
from engine.feed import produce
from engine.images import open_images
from engine.loop import forward

RANKS = 40


class Plain:
    """A wrapped module on one rank of many, without DeepSpeed."""

    def __init__(self, module, size):
        self.module, self.world = module, type("World", (), {"size": size})

    def __call__(self, *args, **kwargs):
        return self.module(*args, **kwargs)


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    root = tmp_path_factory.mktemp("feed")
    tree = tiny_config(root / "run", write_shapes(root / "shapes", train=1, val=1))
    tree["model"]["decoder"] |= {"dropout": 0.0, "embed_dropout": 0.0}
    return assemble(parse_config(tree, "tree"))


@pytest.mark.parametrize("name", ["language", "joint"])
def test_shares_without_a_sample_have_zero_gradients_and_the_rest_adds_up(assembly, name):
    phase = next(p for p in assembly.config.phases if p.name == name)
    model = assembly.build("generative")
    model.vision.freeze()
    plan = assembly.plan(phase, model.vision)
    trained = [p for part in phase.train for p in model.parts()[part].parameters()]

    def first_step(rank, size):
        maker = assembly.maker(phase, "train", plan, model.vision, None, rank=rank, size=size)
        with open_images(assembly.corpus, "train", size=32, config=assembly.config.data) as images:
            batch = next(produce(maker, images, 0, plan.num_steps))
        model.zero_grad()
        plain: object = Plain(model, size)
        loss = forward(plain, batch.micros[0], batch.num_targets)  # type: ignore[arg-type]
        loss.backward()
        assert all(p.grad is not None for p in trained)
        gradient = torch.cat([p.grad.flatten() for p in trained])
        row = batch.micros[0].row
        assert row is not None
        return row.num_documents, loss.detach(), gradient

    documents, loss, gradient = first_step(0, 1)
    shares = [first_step(rank, RANKS) for rank in range(RANKS)]
    assert sum(share[0] for share in shares) == documents < RANKS
    for number, part, slope in shares:
        assert number or (part == 0 and not slope.any())
    torch.testing.assert_close(sum(share[1] for share in shares), loss)
    torch.testing.assert_close(sum(share[2] for share in shares), gradient, rtol=1e-3, atol=1e-5)
