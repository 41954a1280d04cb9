"""Gradient space: the directions in which teacher layers, as targets, would move the student's parameters.

:mod:`layerangles.geometry.angles` compares teacher layers as points in the space of hidden states. Here they are
compared by their effect on the student: two layers at 0° ask for the same update, two at 90° for unrelated ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from layerangles.geometry.maps import MatchingMap

# Numbers of one gradient that are held in float64 at a time.
_NUMBERS_PER_CHUNK = 2**16

StudentStates = Callable[[dict[str, Tensor]], Sequence[Float[Tensor, "example position student_dim"]]]


class MatchingBatch(NamedTuple):
    """Examples with the targets that a student is matched to.

    Attributes:
        inputs: the student's inputs.
        targets: the teacher's states at the valid tokens, examples and positions in reading order.
        valid: the positions that take part in the loss; never PAD.
    """

    inputs: dict[str, Tensor]
    targets: Float[Tensor, "teacher_layer token dim"]
    valid: Bool[Tensor, "example position"]


def gradient_products(
    student_states: StudentStates,
    parameters: Sequence[nn.Parameter],
    maps: Mapping[int, MatchingMap | None],
    batches: Callable[[], Iterable[MatchingBatch]],
) -> Float[Tensor, "view teacher_layer teacher_layer"]:
    """Inner products ``<g_i, g_j>`` between the student's gradients with every teacher layer as the target.

    With the matching loss ``L_i^s(θ) = Σ_tokens ½ ‖W_s S_s(θ) + b_s − T_i‖²`` of student layer s and teacher layer i,
    summed over dimensions and over the valid tokens of all batches, the gradient is ``g_{s,i} = ∂L_i^s/∂θ``, in the
    unit of state² over parameter. The maps stay fixed. The last view is the whole student, all the layers of ``maps``
    matched to one teacher layer at a time: ``g_i = Σ_s g_{s,i}``. The loss is the one of Yu, Wen and Mou (2025), who
    measure angles between states; angles between gradients are an extension of our own.

    A layer has gradients only in the parameters below it; the embedding output (layer 0) in the embeddings alone.

    Gradients are summed in float32, or in float64 if the parameters are: each comes out of a backward pass in that
    precision and has its rounding already, and float64 would double the memory. Their products are float64.

    Time: one forward and ``teacher_layer`` backward passes a view and batch. Memory: the gradients of one view, which
    are ``teacher_layer`` numbers for every number in those rows of the parameters that took part, so an embedding
    takes as many rows as there are different tokens; and what one backward pass needs.

    Args:
        student_states: the states of one tower for a batch's inputs: the embedding output, then one a block. The model
            must be in evaluation mode: with dropout, every view would see another student.
        parameters: θ, each once. Those without a part in a view add nothing to it.
        maps: the student layers to look at, each with its map into teacher space; None is the identity.
        batches: gives the batches, and is called once a view: the same ones every time.

    Returns:
        float64, on the CPU; the layers of ``maps`` in ascending order, then the whole student. Zeros where a gradient
        vanishes, as at a teacher layer that the student meets exactly.

    Raises:
        ValueError: there are no layers, parameters or batches; shapes do not fit together; there is nothing to
            differentiate; or a gradient is not finite.

    Example:
        >>> corner = nn.Parameter(torch.zeros(1, 1, 2))  # a student whose one state is its parameter
        >>> targets = torch.tensor([[[3.0, 0.0]], [[3.0, 4.0]]])  # 2 layers, 1 token: the 3-4-5 triangle
        >>> batch = MatchingBatch({}, targets, valid=torch.tensor([[True]]))
        >>> products = gradient_products(lambda inputs: [corner], [corner], {0: None}, lambda: [batch])
        >>> products[0]
        tensor([[ 9.,  9.],
                [ 9., 25.]], dtype=torch.float64)
        >>> gradient_cosines(products)[0, 0, 1]
        tensor(0.6000, dtype=torch.float64)
    """
    if not maps:
        raise ValueError("maps names no student layer; give at least one, such as {1: None} for an identity map.")
    frozen = sum(not parameter.requires_grad for parameter in parameters)
    if frozen or not parameters:
        raise ValueError(
            f"parameters must be at least one, and all of them trainable; got {len(parameters)}, of which {frozen} do "
            "not require a gradient. Leave out the frozen ones, or unfreeze them with requires_grad_()."
        )
    layers = sorted(maps)
    views = [[layer] for layer in layers] + [layers]
    return torch.stack(
        [
            _products_of_view(student_states, parameters, {layer: maps[layer] for layer in view}, batches())
            for view in views
        ]
    )


def gradient_cosines(
    products: Float[Tensor, "view teacher_layer teacher_layer"],
) -> Float[Tensor, "view teacher_layer teacher_layer"]:
    """Cosines of the angles between gradients, ``<g_i, g_j> / (‖g_i‖ ‖g_j‖)``, from :func:`gradient_products`.

    In [−1, 1], 1 on the diagonal. NaN where a gradient has zero length, and so no direction. The angles in
    degrees are :func:`layerangles.geometry.angles.angle_deg` of these.
    """
    squared_length = products.diagonal(dim1=-2, dim2=-1)
    # The root of the product, not the product of roots: the diagonal is exactly 1.
    return (products / (squared_length[:, :, None] * squared_length[:, None]).sqrt()).clamp(-1.0, 1.0)


class _GradientSums:
    """Sums of one parameter's gradients, one per teacher layer, for the rows that ever had a gradient.

    For an embedding these are the tokens that occurred; for a parameter that takes no part, none. A parameter of fewer
    than two dimensions is one row.
    """

    def __init__(self, parameter: nn.Parameter, n_teacher: int) -> None:
        n_rows = len(parameter) if parameter.ndim > 1 else 1
        # The place of each row of the parameter among the rows held; −1 for those that are not.
        self.place = torch.full((n_rows,), -1, device=parameter.device)
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        self.held = parameter.new_zeros((n_teacher, 0, parameter.numel() // n_rows), dtype=dtype)

    def add(self, teacher_layer: int, gradient: Float[Tensor, "*parameter"]) -> None:
        rows = gradient.reshape(len(self.place), -1)
        present = rows.any(dim=1).nonzero().squeeze(1)  # exact; a norm is faster, but the squares may underflow
        new = present[self.place[present] < 0]
        if len(new):
            n_teacher, n_held, n_numbers = self.held.shape
            self.place[new] = torch.arange(n_held, n_held + len(new), device=new.device)
            self.held = torch.cat([self.held, self.held.new_zeros((n_teacher, len(new), n_numbers))], dim=1)
        self.held[teacher_layer].index_add_(0, self.place[present], rows.index_select(0, present).to(self.held.dtype))

    def products(self) -> Float[Tensor, "teacher_layer teacher_layer"]:
        n_teacher = len(self.held)
        total = torch.zeros((n_teacher, n_teacher), dtype=torch.float64)
        for chunk in torch.split(self.held.flatten(1), _NUMBERS_PER_CHUNK, dim=1):
            # Apple's mps has no float64.
            precise = (chunk.cpu() if chunk.device.type == "mps" else chunk).double()
            total += (precise @ precise.T).cpu()
        return total


def _products_of_view(
    student_states: StudentStates,
    parameters: Sequence[nn.Parameter],
    maps: Mapping[int, MatchingMap | None],
    batches: Iterable[MatchingBatch],
) -> Float[Tensor, "teacher_layer teacher_layer"]:
    """Products of one view, in which all layers of ``maps`` are matched to one teacher layer at a time."""
    sums: list[_GradientSums] = []
    for batch in batches:
        n_teacher = len(batch.targets)
        sums = sums or [_GradientSums(parameter, n_teacher) for parameter in parameters]
        if n_teacher != len(sums[0].held):
            raise ValueError(
                f"all batches must have the same teacher layers; got {len(sums[0].held)} and then {n_teacher}."
            )
        mapped = _mapped_states(student_states, maps, batch)
        for i, target in enumerate(batch.targets):
            gradients = torch.autograd.grad(
                mapped,
                parameters,
                # ∂L/∂(W S + b). Autograd goes on from here with Wᵀ.
                grad_outputs=[states.detach() - target.to(states) for states in mapped],
                retain_graph=i + 1 < n_teacher,
                allow_unused=True,
            )
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    total.add(i, gradient)
    if not sums:
        raise ValueError(
            f"batches() gave no batch for the student layers {list(maps)}. It is called once a view and must give all "
            "batches each time: return a list or a new generator, not one that is used up."
        )
    products = torch.stack([total.products() for total in sums]).sum(dim=0)
    if not products.isfinite().all():  # NaN has one meaning in the cosines, a gradient without a length
        raise ValueError(
            f"the gradients of the student layers {list(maps)} are not finite. Look for NaN or infinite numbers in the "
            "targets and the parameters; a model in float16 may need float32."
        )
    return products


def _mapped_states(
    student_states: StudentStates, maps: Mapping[int, MatchingMap | None], batch: MatchingBatch
) -> list[Float[Tensor, "token dim"]]:
    """``W S + b`` at the valid tokens for every layer of ``maps``, with the graph to differentiate it by.

    Raises:
        ValueError: a layer does not exist or has no graph, or a shape does not fit.
    """
    mapped = []
    with torch.enable_grad():
        states = student_states(batch.inputs)
        for layer, matching_map in maps.items():
            if not 0 <= layer < len(states):
                raise ValueError(
                    f"maps names student layer {layer}; this student has the layers 0 (the embedding output) to "
                    f"{len(states) - 1}. Leave out the others."
                )
            state = states[layer]
            if state.shape[:2] != batch.valid.shape:
                raise ValueError(
                    f"valid must have the student's examples and positions, {tuple(state.shape[:2])}; got the shape "
                    f"{tuple(batch.valid.shape)}. Take both from the same batch."
                )
            if matching_map is not None and matching_map.weight.shape[1] != state.shape[-1]:
                raise ValueError(
                    f"the map of student layer {layer} must take the student's {state.shape[-1]} dimensions; got one "
                    f"that takes {matching_map.weight.shape[1]}. Use the maps that this student was trained with."
                )
            valid = state[batch.valid]
            mapped.append(valid if matching_map is None else matching_map.apply(valid))
            if batch.targets.shape[1:] != mapped[-1].shape:
                raise ValueError(
                    f"targets must be [teacher_layer, token, dim] with {mapped[-1].shape[0]} valid tokens and "
                    f"{mapped[-1].shape[1]} dimensions for student layer {layer}; got the shape "
                    f"{tuple(batch.targets.shape)}. Take the teacher's states at the valid tokens, and a map into "
                    "teacher space where the widths differ."
                )
            if not state.requires_grad:
                raise ValueError(
                    f"student layer {layer} depends on no parameter that requires a gradient. Leave it out of maps, or "
                    "let student_states run without no_grad() and detach()."
                )
    return mapped
