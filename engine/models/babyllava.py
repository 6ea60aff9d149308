"""BabyLLaVA: a vision tower, a connector and a decoder, trained on one packed row a step."""

from __future__ import annotations

from torch import Tensor, nn

from engine.models.config import ModelConfig
from engine.models.connector import Connector
from engine.models.decoder import Decoder
from engine.models.row import PrefixAttention, Row
from engine.models.vision import VisionTower


class BabyLLaVA(nn.Module):
    """Pictures and text in, next-token losses out (published parameter counts: 31 M in all)."""

    def __init__(
        self,
        tower: VisionTower,
        connector: Connector,
        decoder: Decoder,
        *,
        prefix_attention: PrefixAttention = "causal",
    ) -> None:
        super().__init__()
        self.vision, self.connector, self.decoder = tower, connector, decoder
        self.prefix_attention: PrefixAttention = prefix_attention

    def parts(self) -> dict[str, nn.Module]:
        """The parts that phases name."""
        return {"vision": self.vision, "connector": self.connector, "decoder": self.decoder}

    def forward(
        self,
        row: Row,
        *,
        images: Tensor | None = None,
        features: Tensor | None = None,
        scale: float = 1.0,
    ) -> Tensor:
        """Return ``scale`` times the summed cross-entropy over the row's losses, a scalar.

        Args:
            row: the packed documents.
            images: normalised pictures ``[N, 3, S, S]`` in the order of ``row.image_slots``.
            features: or what the tower made of them, ``[N, P, C]``. Neither: a row of text. A
                rank whose row happens to hold no picture passes N = 0, so that the connector
                gets a (zero) gradient on every rank.
            scale: 1 / loss tokens of the step over all ranks, so that ranks' losses add up to
                the mean.
        """
        hidden = self.hidden(row, images=images, features=features)
        picked = hidden.index_select(0, row.loss_rows)
        return self.decoder.vocabulary(hidden=picked, targets=row.targets) * scale

    def hidden(
        self, row: Row, *, images: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Return the decoder's hidden states ``[T, H]`` of a row."""
        x = self.inputs(row, images=images, features=features)
        return self.decoder(x, row.positions, row.intervals(self.prefix_attention))

    def inputs(
        self, row: Row, *, images: Tensor | None = None, features: Tensor | None = None
    ) -> Tensor:
        """Return the decoder's inputs ``[T, H]``: embeddings with the pictures spliced in."""
        x = self.decoder.embed(row.tokens)
        if images is not None:
            features = self.vision(images)
        if features is None:
            if row.image_slots.numel():
                raise ValueError("images: the row holds pictures, but none were given")
            return x
        if features.shape[0] * features.shape[1] != row.image_slots.shape[0]:
            raise ValueError(
                f"images: {features.shape[0]} of {features.shape[1]} tokens do not fill the "
                f"row's {row.image_slots.shape[0]} picture positions"
            )
        pictures = self.connector(features).flatten(0, 1)
        return x.index_copy(0, row.image_slots, pictures.to(x.dtype))


def build_generative(config: ModelConfig, vocab_size: int) -> BabyLLaVA:
    """Return a freshly initialised BabyLLaVA (torch's global generator decides the weights)."""
    tower = VisionTower(config.vision, config.image_size)
    decoder = Decoder(config.decoder, vocab_size)
    connector = Connector(
        config.connector, dim=tower.dim, width=config.decoder.width, num_tokens=tower.num_tokens
    )
    return BabyLLaVA(tower, connector, decoder, prefix_attention=config.prefix_attention)
