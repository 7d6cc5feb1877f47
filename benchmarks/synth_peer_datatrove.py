"""The rows of `synth_peer.py` with datatrove's InferenceRunner; runs in an environment that has it.

python synth_peer_datatrove.py ROWS.json FOLDER GENERATIONS DOCUMENTS URL
"""

import json
import sys
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    todo, folder, generations, documents, url = sys.argv[1:]
    rows = json.loads(Path(todo).read_text())

    async def rollout(document, generate):
        text = ""
        for tokens in rows[document.id]:
            messages = [{"role": "user", "content": f"{document.text} {text} tokens={tokens}"}]
            text += (await generate({"messages": messages, "max_tokens": 400})).text
        return text

    runner = InferenceRunner(
        rollout,
        InferenceConfig(
            server_type="endpoint",
            model_name_or_path="fake",
            endpoint_url=url,
            max_concurrent_generations=int(generations),
            max_concurrent_documents=int(documents),
        ),
        JsonlWriter(f"{folder}/out", output_filename="${rank}_${chunk_index}.jsonl", compression=None),
        checkpoints_local_dir=f"{folder}/checkpoints",
    )
    runner.run(Document(text=f"Task {name}", id=name) for name in rows)
    made = [json.loads(line) for path in Path(folder, "out").glob("*.jsonl") for line in path.open()]
    assert len(made) == len(rows), (len(made), len(rows))


if __name__ == "__main__":
    main()
