"""The kernel against a loop over pairs of layers: speed on the same work, and accuracy against float64.

Run: python benchmarks/kernel.py
"""

import torch
from common import alternate, arguments, report

from layerangles.geometry.angles import TOKENS_PER_CHUNK, angle_deg, chunk_geometry, layer_pairs, vertex_angles_deg

TEACHER_LAYERS, STUDENT_LAYERS, WIDTH = 13, 6, 384


def loop_over_pairs(teacher: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
    """What one writes first: for every student layer and pair, ``cosine_similarity`` of two differences, in float32."""
    a, b = layer_pairs(len(teacher))
    out = torch.empty(len(vertex), len(a), teacher.shape[1])
    for s, state in enumerate(vertex):
        for p, (i, j) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
            out[s, p] = torch.nn.functional.cosine_similarity(teacher[i] - state, teacher[j] - state, dim=-1)
    return out


def kernel(teacher: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
    """The same cosines, in float64, by the kernel that the pass uses."""
    a, b = layer_pairs(len(teacher))
    out = torch.empty(len(vertex), len(a), teacher.shape[1], dtype=torch.float64)
    for start in range(0, teacher.shape[1], TOKENS_PER_CHUNK):
        tokens = slice(start, start + TOKENS_PER_CHUNK)
        out[..., tokens] = chunk_geometry(teacher[:, tokens], vertex[:, tokens], a, b).cosines
    return out


def reference_angles(teacher: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
    """Angles from the definition in float64, through ``2 atan2(‖û − v̂‖, ‖û + v̂‖)``."""
    spokes = teacher.double()[None] - vertex.double()[:, None]
    unit = spokes / spokes.norm(dim=-1, keepdim=True)
    chord = (unit[:, :, None] - unit[:, None]).norm(dim=-1)
    return torch.rad2deg(2 * torch.atan2(chord, (unit[:, :, None] + unit[:, None]).norm(dim=-1)))


def cases(n_tokens: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Inputs that a careless kernel gets wrong."""
    torch.manual_seed(0)
    teacher, vertex = torch.randn(TEACHER_LAYERS, n_tokens, WIDTH), torch.randn(STUDENT_LAYERS, n_tokens, WIDTH)
    near = teacher[2::2] * (1 + 1e-4 * torch.randn(STUDENT_LAYERS, n_tokens, WIDTH))
    rogue = torch.ones(WIDTH)
    rogue[7] = 3000
    shift = torch.zeros(WIDTH)
    shift[7] = 3000
    return {
        "typical": (teacher, vertex),
        "student within 0.01 % of a teacher layer": (teacher, near),
        "one dimension 3,000 times the others": (teacher * rogue, vertex * rogue),
        "one dimension shifted by 3,000": (teacher + shift, vertex + shift),
        "both: near, and one large dimension": (teacher * rogue, near * rogue),
        "all angles tiny": (teacher, vertex * 1e5),
    }


def main() -> None:
    """Print speed and accuracy."""
    chosen = arguments(__doc__ or "", tokens=768)
    print(
        f"\n{TEACHER_LAYERS} teacher states, {STUDENT_LAYERS} student layers, width {WIDTH}, {chosen.tokens} tokens\n"
    )
    inputs = cases(chosen.tokens)
    teacher, vertex = inputs["typical"]
    times = alternate(
        {
            "loop over pairs, cosine_similarity, float32": lambda: loop_over_pairs(teacher, vertex),
            "kernel, float64": lambda: kernel(teacher, vertex),
        },
        chosen.rounds,
    )
    report(times, "loop over pairs, cosine_similarity, float32")
    print(f"\n{'largest error of an angle, degrees':44}{'kernel':>12}{'loop, float32':>16}")
    a, b = layer_pairs(TEACHER_LAYERS)
    for name, (teacher, vertex) in cases(128).items():
        expected = reference_angles(teacher, vertex)
        ours = (vertex_angles_deg(teacher, vertex) - expected)[:, a, b].abs().max().item()
        theirs = (angle_deg(loop_over_pairs(teacher, vertex).clamp(-1, 1)) - expected[:, a, b]).abs().max().item()
        print(f"{name:44}{ours:12.1e}{theirs:16.1e}")


if __name__ == "__main__":
    main()
