"""The embedder that a recipe's settings name."""

from ropewalk.schemas.similarity import EmbedConfig
from ropewalk.transforms.embed import Embedder
from ropewalk.transforms.embedders import minilm, onnx, openai, openvino_model, sentence_transformers, vllm
from ropewalk.transforms.embedders.encoder import Encoder
from ropewalk.transforms.embedders.static import DIMENSIONS, StaticEmbedder
from ropewalk.transforms.embedders.windows import WindowEmbedder


def embedder(config: EmbedConfig, threads: int = 1) -> Embedder:
    """The embedder of a recipe, `lexical` excepted: that one is made from the corpus. Nothing is loaded yet."""
    if config.embedder == "static":
        return StaticEmbedder(config.dimensions or DIMENSIONS, threads)
    return WindowEmbedder(
        encoder(config, threads),
        window=None if config.embedder == "openai" else config.window,
        overlap=config.overlap,
        max_windows=config.max_windows,
        wanted=config.dimensions,
        reduce=config.reduce,
    )


def encoder(config: EmbedConfig, threads: int = 1) -> Encoder:
    """The encoder behind a windowed embedder."""
    model, url = config.model or "", config.url or ""
    match config.embedder:
        case "minilm":
            return minilm.MiniLM(config.precision, config.temperature, threads)
        case "onnx":
            return onnx.Onnx(model, config.precision, config.batch or openvino_model.BATCH, threads)
        case "sentence_transformers":
            return sentence_transformers.SentenceTransformers(
                model, config.batch or sentence_transformers.BATCH, threads
            )
        case "vllm":
            return vllm.Vllm(model, config.batch or vllm.BATCH, config.options, threads)
        case "openai":
            window = config.window or openai.WINDOW
            return openai.OpenAI(url, model, config.api_key_env, window, config.batch or openai.BATCH)
        case _:
            raise ValueError(f"embedder {config.embedder!r} has no encoder")
