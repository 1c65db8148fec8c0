"""How the channel compiler scales: seconds and peak memory by depth, by width, and for a 7B model without its weights.

    python benchmarks/scaling.py                  every case below, as a table
    python benchmarks/scaling.py bert 12 768      one case, as JSON: layers, width
    python benchmarks/scaling.py llama 32         plan a Llama-shaped model of that depth on the meta device
    python benchmarks/scaling.py published 0      BERT-base under the heads and dims of a published model, verified
    python benchmarks/scaling.py published 0 64   the same in float64

Each case runs in its own process. Memory is the growth of the process's peak resident set from just before the model
is built, so the interpreter and its libraries do not count, and everything else does: the model, masked and small
weights, analyses, verification. Half of the FFN dims and 4 of 5 attention blocks of 32 × 32 are masked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from memory import peak, resident

DEPTHS = [(layers, 512) for layers in (2, 6, 12, 24, 48)]
WIDTHS = [(2, width) for width in (256, 512, 1024, 2048, 4096)]
NAMED = {"BERT-base": (12, 768), "BERT-large": (24, 1024)}
THREADS = 2


def bert(layers: int, width: int) -> dict[str, Any]:
    """Trace and shrink a BERT of that depth and width (heads of 64, FFN of 4 × width)."""
    import torch
    import transformers

    import passes

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, intermediate_size=4 * width
    )
    tiny = transformers.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    passes.shrink(
        passes.trace(transformers.BertModel(tiny), torch.ones(2, 4, dtype=torch.long))
    )  # imports, first calls
    before = resident()
    model = transformers.BertModel(config).eval()
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    masks = {}
    for name, parameter in model.encoder.named_parameters():
        rows, columns = parameter.shape if parameter.dim() == 2 else (0, 0)
        if rows > columns:
            masks[f"encoder.{name}"] = (torch.rand(rows, 1) > 0.5).expand(rows, columns)
            masks[f"encoder.{name[: -len('weight')]}bias"] = masks[f"encoder.{name}"][:, 0]
        elif rows and rows == columns:
            blocks = torch.rand(rows // 32, columns // 32) > 0.8
            masks[f"encoder.{name}"] = blocks.repeat_interleave(32, 0).repeat_interleave(32, 1)
    ids = torch.randint(0, 1000, (2, 16))
    start = time.perf_counter()
    graph = passes.trace(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    traced = time.perf_counter()
    passes.plan_shrink(graph, masks)
    planned = time.perf_counter()
    result = passes.shrink(graph, masks)
    done = time.perf_counter()
    return {
        "layers": layers,
        "width": width,
        "parameters": result.report.parameters_before,
        "kept": result.report.parameters_after,
        "trace s": round(traced - start, 2),
        "analysis s": round(planned - traced, 2),
        "shrink s": round(done - planned, 2),
        "peak/weights": round((peak() - before) / size, 2),
        "nodes": len(graph.graph.nodes),
    }


def published(number: int, bits: int = 32) -> dict[str, Any]:
    """Trace, analyse, rewrite and verify BERT-base (random weights) with a published structure as masks."""
    import torch

    import passes
    from bpc.bench.published import bert_base_model, example_inputs, published_model, structure_masks
    from passes.structure.roles import find_roles

    torch.set_num_threads(THREADS)
    structure = published_model(number)
    model = bert_base_model().to({32: torch.float32, 64: torch.float64}[bits])
    start = time.perf_counter()
    graph = passes.trace(model, example_inputs())
    traced = time.perf_counter()
    masks = structure_masks(find_roles(graph), structure.pruned_heads, structure.ffn_dims)
    result = passes.shrink(graph, masks)
    done = time.perf_counter()
    assert result.report.agreement is not None
    return {
        "structure": number,
        "parameters": result.report.parameters_before,
        "kept": result.report.parameters_after,
        "trace s": round(traced - start, 2),
        "shrink and verify s": round(done - traced, 2),
        "largest difference": f"{result.report.agreement.max_abs_diff:.1e}",
    }


def llama(layers: int) -> dict[str, Any]:
    """Plan a Llama-2-7B-shaped model from masks (40 % of the FFN dims, 30 % of the heads), on the meta device."""
    import torch
    import transformers

    import passes

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=layers, use_cache=False)
    tiny = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9, use_cache=False
    )
    passes.plan_shrink(passes.trace(transformers.LlamaForCausalLM(tiny), torch.ones(2, 4, dtype=torch.long)))
    before = resident()
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    masks = {}
    for name, parameter in model.named_parameters():
        if "gate_proj" in name or "up_proj" in name:
            masks[name] = (torch.rand(parameter.shape[0], 1) > 0.4).expand(parameter.shape)
        elif "v_proj" in name:
            heads = torch.rand(config.num_key_value_heads) > 0.3
            masks[name] = heads.repeat_interleave(config.head_dim)[:, None].expand(parameter.shape)
    start = time.perf_counter()
    graph = passes.trace(model, {"input_ids": torch.ones(2, 16, dtype=torch.long, device="meta"), "use_cache": False})
    traced = time.perf_counter()
    plan = passes.plan_shrink(graph, masks)
    done = time.perf_counter()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    return {
        "layers": layers,
        "parameters": sum(p.numel() for p in model.parameters()),
        "kept": sum(torch.Size(plan.small_shape(name, shape)).numel() for name, shape in shapes.items()),
        "trace s": round(traced - start, 2),
        "analysis s": round(done - traced, 2),
        "peak MB": round((peak() - before) / 1e6),
        "weights MB (bf16)": round(sum(p.numel() for p in model.parameters()) * 2 / 1e6),
    }


def in_process(*arguments: object) -> dict[str, Any]:
    """Run one case in a fresh process."""
    command = [sys.executable, __file__, *map(str, arguments)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    data: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return data


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += [
        "| " + " | ".join(f"{v:,}" if isinstance(v, int) else str(v) for v in row.values()) + " |" for row in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if arguments:
        case = {"bert": bert, "llama": llama, "published": published}[arguments[0]]
        print(json.dumps(case(*map(int, arguments[1:]))))
        return
    print(table([{"model": name} | in_process("bert", *sizes) for name, sizes in NAMED.items()]), end="\n\n")
    for cases in (DEPTHS, WIDTHS):
        print(table([in_process("bert", *sizes) for sizes in cases]), end="\n\n", flush=True)
    print(table([in_process("published", 0)]), end="\n\n")
    print(table([in_process("llama", 32)]))


if __name__ == "__main__":
    main(sys.argv[1:])
