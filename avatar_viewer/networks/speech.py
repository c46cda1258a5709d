"""The speech backbone: transformers' HuBERT, streamed hop by hop within a `StreamContext`. Only home of transformers.

HuBERT is not streamable as its library runs it: attention and positional convolution see the whole clip, and the
base model's first convolution is normalised over all time. Here the very same weights run block-wise
(`block_attention`): attention sees `left_features` of the past and the hop's look-ahead; the positional convolution
stops at the block's right edge; a GroupNorm front end uses the statistics of all sound heard so far. With one hop as
long as the clip this is exactly `HubertModel.forward` (tested). Front-end features, keys and values are computed once
and cached; only the look-ahead tokens are computed twice.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import DEFAULT_STREAM, FEATURE_FIELD, FEATURE_HOP, SAMPLE_RATE, StreamContext
from ..errors import InputError
from ..types import SpeechFeatures
from .block_attention import BlockShape, Past, Streaming, WholeSequence, Window
from .speech_front_end import RunningMoments, convolve, gabor_kernels

FEATURE_RATE = SAMPLE_RATE / FEATURE_HOP  # 50 features a second
FIRST_GAIN = 10.0  # of the first kernels of a new backbone
DEFAULT_LEFT_FEATURES = 80  # 1.6 s of left context where a model's config does not say
PUBLIC_MEGABYTES = {
    "facebook/hubert-base-ls960": 378,
    "facebook/hubert-large-ll60k": 1262,
    "facebook/hubert-large-ls960-ft": 1262,
}


def load_speech_backbone(folder_or_public_name: str | Path) -> SpeechBackbone:
    """The backbone in a folder, or a public one by name from the machine's own cache; never from the internet.

    `InputError` says what is missing, where to put it and with which command.
    """
    from transformers import HubertModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar for 40 tensors is noise on stderr, where one line is one message
    name = str(folder_or_public_name)
    if Path(name).is_dir():
        _check_folder(Path(name))
    elif not _looks_public(name):
        raise InputError(f"speech backbone {name}: no such folder, and not a public name such as facebook/hubert-base-ls960")
    try:
        model = HubertModel.from_pretrained(name, use_safetensors=True, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        if Path(name).is_dir():
            raise InputError(f"speech backbone {name}: {str(error).splitlines()[0]}") from error
        raise InputError(_how_to_fetch(name)) from error
    return SpeechBackbone(model.eval(), name=name)


def _looks_public(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _how_to_fetch(name: str) -> str:
    size = f"{PUBLIC_MEGABYTES[name]} MB, " if name in PUBLIC_MEGABYTES else ""
    return (
        f"speech backbone {name} ({size}safetensors) is not on this machine; fetch it with `hf download {name}`, or put its "
        f"folder anywhere and name that folder; a repository with only pytorch_model.bin needs converting: {_CONVERSION}"
    )


_CONVERSION = (
    "python -c \"from transformers import HubertModel; HubertModel.from_pretrained('SOURCE').save_pretrained('TARGET')\""
)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"speech backbone {folder}: config.json is missing")
    if not any(folder.glob("*.safetensors")):
        if any(folder.glob("*.bin")):
            raise InputError(
                f"speech backbone {folder}: holds only a pickled .bin, which is never read; convert it: {_CONVERSION}"
            )
        raise InputError(f"speech backbone {folder}: model.safetensors is missing")


def save_speech_backbone(backbone: SpeechBackbone, folder: str | Path) -> None:
    """Writes config.json and model.safetensors (fp16) that `HubertModel.from_pretrained` loads as they are."""
    import copy

    from transformers.utils import logging

    logging.disable_progress_bar()
    model = copy.deepcopy(backbone.model).to("cpu", torch.float16)
    model.config.stream_left_features = backbone.left_features
    model.save_pretrained(folder, safe_serialization=True)


class SpeechBackbone(nn.Module):
    """A HubertModel that hears block-wise."""

    def __init__(self, model: nn.Module, *, name: str, left_features: int | None = None) -> None:
        super().__init__()
        config = model.config
        field, hop = 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride):
            field, hop = field + (kernel - 1) * hop, hop * stride
        if (field, hop) != (FEATURE_FIELD, FEATURE_HOP):
            raise InputError(
                f"speech backbone {name}: a feature sees {field} samples every {hop}; "
                f"HuBERT's grid is {FEATURE_FIELD} every {FEATURE_HOP}"
            )
        self.model = model
        self.name = name
        self.left_features = left_features or getattr(config, "stream_left_features", DEFAULT_LEFT_FEATURES)

    @property
    def feature_dim(self) -> int:
        return self.model.config.hidden_size

    def stream(self, context: StreamContext = DEFAULT_STREAM) -> SpeechStream:
        return SpeechStream(self, context)

    def count_products(self, context: StreamContext = DEFAULT_STREAM) -> tuple[float, float]:
        """Multiplications a second of sound: streamed within `context`, and in one pass that hears each feature once."""
        shape, config, left = block_shape(context), self.model.config, self.left_features
        width, kernel = config.hidden_size, config.num_conv_pos_embeddings
        front, rate, inputs = 0.0, float(SAMPLE_RATE), 1
        for channels, taps, stride in zip(config.conv_dim, config.conv_kernel, config.conv_stride):
            rate /= stride
            front += rate * channels * taps * inputs
            inputs = channels
        token = width * inputs / config.num_hidden_layers  # the projection, shared out over the layers
        token += 4 * width**2 + 2 * width * config.intermediate_size
        position = width**2 // config.num_conv_pos_embedding_groups * kernel

        def transform(tokens: int, seen: float) -> float:  # a hop
            return tokens * (config.num_hidden_layers * (token + 2 * width * seen) + position)

        hops = SAMPLE_RATE / context.hop_samples
        overlap = (FEATURE_FIELD - FEATURE_HOP) / context.hop_samples  # the first layer hears a field's rest anew each hop
        streamed = front * (1 + overlap) + hops * transform(shape.tokens, left + shape.tokens)
        return streamed, front + hops * transform(shape.main, left + shape.main)

    def forward_blocks(
        self,
        samples: Tensor,  # [B, S]: whole hops plus the look-ahead of the last
        context: StreamContext = DEFAULT_STREAM,
        hidden: Tensor | None = None,  # [B, H M + R] bool: features replaced by the mask embedding, for training
    ) -> Tensor:  # [B, H, M + R, D]
        """What the stream gives, all hops in parallel; differentiable."""
        return self.understand_blocks(self.hear(samples, context), context, hidden)

    def hear(
        self,
        samples: Tensor,  # [B, S]
        context: StreamContext = DEFAULT_STREAM,
    ) -> Tensor:  # [B, H M + R, D]
        """The front end's features of whole hops and the last one's look-ahead: local, 25 ms each."""
        shape = block_shape(context)
        hops = (samples.shape[-1] - context.lookahead_samples) // context.hop_samples
        if hops < 1:
            raise ValueError(f"{samples.shape[-1]} samples hold no hop of {context.hop_ms} ms with its look-ahead")
        head_length, hop_length = _span(shape.tokens), _span(shape.main)
        head = samples[:, None, :head_length]
        tail_end = (hops * shape.main + shape.right) * FEATURE_HOP + FEATURE_FIELD - FEATURE_HOP
        tail = samples[:, shape.tokens * FEATURE_HOP : tail_end]
        pieces = [head] if hops == 1 else [head, tail.unfold(1, hop_length, shape.main * FEATURE_HOP)]
        return torch.cat([f.flatten(1, 2) for f in self._hear(pieces, RunningMoments())], dim=1)

    def understand_blocks(
        self,
        features: Tensor,  # [B, H M + R, D], of `hear`
        context: StreamContext = DEFAULT_STREAM,
        hidden: Tensor | None = None,  # [B, H M + R] bool: features replaced by the mask embedding, for training
    ) -> Tensor:  # [B, H, M + R, D]
        """The Transformer over the front end's features, all hops in parallel."""
        shape = block_shape(context)
        if hidden is not None:
            features = torch.where(hidden[..., None], self.model.masked_spec_embed, features)
        return self._understand(shape.expand(features), WholeSequence(shape, shape.num_hops(features.shape[1])))

    def _hear(
        self,
        pieces: list[Tensor],  # each [B, n, samples]: consecutive stretches; the fields of neighbours overlap
        moments: RunningMoments,
    ) -> list[Tensor]:  # each [B, n, features, D]
        """The convolutional front end and its projection, piece by piece."""
        layers = self.model.feature_extractor.conv_layers
        results = []
        for piece in pieces:
            x = piece.unsqueeze(-1)
            for layer in layers:
                x = convolve(x, layer.conv)
                norm = getattr(layer, "layer_norm", None)
                if isinstance(norm, nn.GroupNorm):
                    overlap = (FEATURE_FIELD - FEATURE_HOP - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
                    x = moments.normalise(x, norm, overlap)
                elif norm is not None:
                    x = norm(x)
                x = layer.activation(x)
            results.append(self.model.feature_projection(x))
        return results

    def _understand(
        self,
        blocks: Tensor,  # [B, H, P, D] projected features
        past: Past,
    ) -> Tensor:  # [B, H, P, D]
        """Positional convolution and Transformer, block-wise."""
        encoder, stable = self.model.encoder, self.model.config.do_stable_layer_norm
        x = blocks + self._position(encoder.pos_conv_embed, blocks, past)
        if not stable:
            x = encoder.layer_norm(x)
        x = encoder.dropout(x)
        for index, layer in enumerate(encoder.layers):
            if stable:
                x = x + layer.dropout(self._attend(layer, layer.layer_norm(x), past, index))
                x = x + layer.feed_forward(layer.final_layer_norm(x))
                if layer.adapter_layer is not None:
                    x = x + layer.adapter_layer(x)
            else:
                x = layer.layer_norm(x + layer.dropout(self._attend(layer, x, past, index)))
                x = layer.final_layer_norm(x + layer.feed_forward(x))
        return encoder.layer_norm(x) if stable else x

    def _attend(self, layer: nn.Module, x: Tensor, past: Past, index: int) -> Tensor:
        attention = layer.attention
        window = Window(attention.num_heads, self.left_features, dropout=attention.dropout if self.training else 0.0)
        mixed = past.attend(f"layer{index}", attention.q_proj(x), attention.k_proj(x), attention.v_proj(x), window)
        return attention.out_proj(mixed)

    @staticmethod
    def _position(embed: nn.Module, blocks: Tensor, past: Past) -> Tensor:
        x = blocks
        if embed.batch_norm is not None:
            x = embed.batch_norm(x.flatten(0, 2).unsqueeze(-1)).view_as(x)
        kernel = embed.conv.kernel_size[0]
        left = kernel // 2
        joined = torch.cat([past.preceding("position", x, left), x], dim=2)
        channels = joined.flatten(0, 1).transpose(1, 2)
        convolved = F.conv1d(
            F.pad(channels, (0, kernel - 1 - left)), embed.conv.weight, embed.conv.bias, groups=embed.conv.groups
        )
        return embed.activation(convolved).transpose(1, 2).unflatten(0, blocks.shape[:2])


class SpeechStream:
    """One voice, heard hop after hop; constant memory, fixed tensor shapes."""

    def __init__(self, backbone: SpeechBackbone, context: StreamContext) -> None:
        self.backbone, self.context = backbone, context
        self.shape = block_shape(context)
        self._past = Streaming(self.shape)
        self.reset()

    def reset(self) -> None:
        self._past.reset()
        self._moments = RunningMoments()
        self._ahead: Tensor | None = None  # [1, 1, R, D] features that the last hop already heard

    @property
    def window_samples(self) -> int:
        return self.context.hop_samples + self.context.lookahead_samples

    @torch.no_grad()
    def push(
        self,
        samples: Tensor,  # [window_samples]: the hop and its look-ahead; the next window starts one hop later
    ) -> Tensor:  # [M + R, D]
        """Features of the hop's main tokens and of its look-ahead."""
        if tuple(samples.shape) != (self.window_samples,):
            raise ValueError(f"a window is {self.window_samples} samples ({self.context}), got {list(samples.shape)}")
        right = self.shape.right
        known = 0 if self._ahead is None else right
        piece = samples[known * FEATURE_HOP : known * FEATURE_HOP + _span(self.shape.tokens - known)]
        (fresh,) = self.backbone._hear([piece[None, None]], self._moments)
        features = fresh if self._ahead is None else torch.cat([self._ahead, fresh], dim=2)
        self._ahead = features[:, :, features.shape[2] - right :]
        heard = self.backbone._understand(features, self._past)
        self._past.advance()
        return heard[0, 0]


def encode_speech(
    backbone: SpeechBackbone,
    samples: Tensor,  # [S] float32 mono 16 kHz
    context: StreamContext = DEFAULT_STREAM,
) -> SpeechFeatures:
    """Features of the whole sound, ceil(S / 320) of them: the stream's main tokens, silence behind the end."""
    stream = backbone.stream(context)
    length = samples.shape[0]
    hops = -(-length // context.hop_samples)
    padded = F.pad(samples, (0, hops * context.hop_samples + context.lookahead_samples - length))
    main = [
        stream.push(padded[h * context.hop_samples : h * context.hop_samples + stream.window_samples])[: stream.shape.main]
        for h in range(hops)
    ]
    values = torch.cat(main) if main else samples.new_zeros(0, backbone.feature_dim)
    return SpeechFeatures(values[: -(-length // FEATURE_HOP)], FEATURE_RATE)


def block_shape(context: StreamContext) -> BlockShape:
    return BlockShape(main=context.hop_features, right=context.lookahead_features)


def _span(features: int) -> int:
    """Samples that `features` consecutive features see."""
    return (features - 1) * FEATURE_HOP + FEATURE_FIELD


def create_speech_backbone(
    *,
    hidden: int = 192,
    layers: int = 6,
    heads: int = 4,
    feed_forward: int = 768,
    channels: tuple[int, int, int] = (128, 192, 256),
    position_kernel: int = 19,
    position_groups: int = 16,
    left_features: int = DEFAULT_LEFT_FEATURES,
) -> SpeechBackbone:
    """A compact HuBERT, untrained: layer-norm front end (streamable), HuBERT's own grid, first kernels as a filter bank.

    Three wide convolutions (80 taps every 20, then 5 every 4, then 4 every 4) hear 45 million products a second of
    sound; HuBERT-base's seven take 2,450 million.
    """
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=feed_forward,
        conv_dim=channels, conv_kernel=(80, 5, 4), conv_stride=(20, 4, 4), conv_bias=True, feat_extract_norm="layer",
        num_conv_pos_embeddings=position_kernel, num_conv_pos_embedding_groups=position_groups, do_stable_layer_norm=True,
        hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, feat_proj_dropout=0.0, layerdrop=0.0,
        stream_left_features=left_features,
    )  # fmt: skip
    model = HubertModel(config)
    first = model.feature_extractor.conv_layers[0].conv
    with torch.no_grad():
        # Sound is small beside the layer norm's epsilon (1e-5): at unit gain, speech under -50 dB of full scale would vanish.
        first.weight.copy_(FIRST_GAIN * gabor_kernels(*first.weight.shape[::2])[:, None])
        # A little offset keeps the level audible through the layer norm: frames under -65 dB look like the offset.
        first.bias.normal_(0.0, 0.0005 * FIRST_GAIN)
    return SpeechBackbone(model, name="compact", left_features=left_features)
