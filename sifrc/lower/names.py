"""Identifiers and descriptions of the families in generated code: one table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sifrc.lower.program import Storage

__all__ = ["CODE_NAMES", "DESCRIPTIONS", "STORAGE"]

_TABLE: tuple[tuple[str, str, Storage, str], ...] = (
    ("W", "weights", Storage.PARAMETER, "weights W_k"),
    ("β", "biases", Storage.PARAMETER, "biases β_k"),
    ("x", "x", Storage.WORK, "states x_k; x_0 is the input"),
    ("a", "a", Storage.WORK, "pre-activations a_k"),
    ("t", "targets", Storage.DATA, "targets t"),
    ("λ", "regularization", Storage.CONSTANT, "state regularisation λ_k"),
    ("b", "b", Storage.WORK, "adjoints b_k"),
    ("y", "y", Storage.WORK, "back-propagated adjoints y_k = F'(a_k) ∘ b_k"),
    ("b°", "b_plain", Storage.WORK, "adjoints without regularisation"),
    ("y°", "y_plain", Storage.WORK, "back-propagated adjoints without regularisation"),
    ("F'", "slope", Storage.WORK, "slopes F'(a_k)"),
    ("F''", "curvature", Storage.WORK, "curvatures F''(a_k)"),
    ("F'''", "third", Storage.WORK, "third derivatives F'''(a_k)"),
    ("softmax", "softmax", Storage.WORK, "softmax of the output"),
    ("loss", "loss", Storage.WORK, "loss of a sample"),
    ("R", "penalty", Storage.WORK, "state regularisation up to layer k"),
    ("objective", "objective", Storage.WORK, "objective of a sample"),
    ("ζ", "zeta", Storage.WORK, "multipliers ζ_k of the adjoint equations, −ẋ_k"),
    ("γ", "gamma", Storage.WORK, "multipliers γ_k of the forward equations, −ḃ_k"),
    ("u", "u", Storage.WORK, "∂S/∂y_k"),
    ("z", "z", Storage.WORK, "∂S/∂a_k"),
    ("N", "vector_weights", Storage.DIRECTION, "weight parts N_k of the vector"),
    ("η", "vector_biases", Storage.DIRECTION, "bias parts η_k of the vector"),
    ("G", "gradient_weights", Storage.RESULT, "gradients G_k"),
    ("g", "gradient_biases", Storage.RESULT, "gradients g_k"),
    ("HN", "product_weights", Storage.RESULT, "weight parts of the Hessian product"),
    ("Hη", "product_biases", Storage.RESULT, "bias parts of the Hessian product"),
    ("GN", "gauss_newton_weights", Storage.RESULT, "weight parts of the Gauss–Newton product"),
    ("Gη", "gauss_newton_biases", Storage.RESULT, "bias parts of the Gauss–Newton product"),
    ("N*", "newton_weights", Storage.RESULT, "Newton direction N_k"),
    ("η*", "newton_biases", Storage.RESULT, "Newton direction η_k"),
    ("dx", "dx", Storage.WORK, "tangents of the states"),
    ("da", "da", Storage.WORK, "tangents of the pre-activations"),
    ("r", "r", Storage.WORK, "∂²ℓ/∂x_n² ẋ_n"),
    ("c", "c", Storage.WORK, "adjoints of the linearised model"),
    ("dy", "dy", Storage.WORK, "back-propagated adjoints of the linearised model"),
    ("v", "granular", Storage.WORK, "granular part v of η_n"),
    ("cN", "weight_factor", Storage.WORK, "factor of the weight direction"),
    ("cη", "bias_factor", Storage.WORK, "factor of the bias direction"),
    ("c_mk", "stretch", Storage.WORK, "−⟨g_k, η_k⟩ with its signs inverted"),
    ("w", "sample_weight", Storage.WORK, "weight of a sample"),
    ("D", "direction", Storage.WORK, "direction N_k"),
    ("D+", "direction_new", Storage.WORK, "new direction N_k"),
    ("P", "precision", Storage.WORK, "precision matrix"),
    ("Py", "precision_y", Storage.WORK, "precision matrix times y_k"),
    ("gain", "gain", Storage.WORK, "gain of the recursion"),
    ("e", "residual", Storage.WORK, "residual N_kᵀ y_k + ∂ℓ_R/∂x_{k−1}"),
    ("m", "state_mean", Storage.WORK, "moving average of x_{k−1}"),
    ("H", "block", Storage.WORK, "blocks H_k of the pre-activations"),
    ("H̄", "mean_block", Storage.WORK, "batch mean of the blocks H_k, or its approximation"),
    ("H°", "output_block", Storage.WORK, "block of the output with its negative eigenvalues"),
    ("H°̄", "mean_output_block", Storage.WORK, "mean block of the output with its negative eigenvalues"),
    ("ρ", "residual_diagonal", Storage.WORK, "diagonal of the residual"),
    ("ρ̄", "mean_residual", Storage.WORK, "batch mean of the residual's diagonal"),
    ("h", "block_diagonal", Storage.WORK, "diagonals of the blocks H_k"),
    ("S", "score", Storage.WORK, "scores ∂ℓ/∂x_k at expected targets"),
    ("T", "score_y", Storage.WORK, "back-propagated scores F'(a_k) ∘ S_k"),
    ("Sᶜ", "class_score", Storage.WORK, "scores ∂ℓ/∂x_k at every class, times the root of its probability"),
    ("Tᶜ", "class_score_y", Storage.WORK, "back-propagated scores of the classes F'(a_k) ∘ Sᶜ_k"),
    ("x̃", "perturbed", Storage.WORK, "output with Gumbel noise"),
    ("t̃", "drawn", Storage.WORK, "targets drawn from the model"),
    ("ω", "uniform", Storage.RANDOM, "uniform random numbers"),
    ("ε", "normal", Storage.RANDOM, "standard normal random numbers"),
    ("A", "second_moment", Storage.WORK, "second moments of the inputs of the layers"),
    ("m̄", "mean_input", Storage.WORK, "means of the inputs of the layers"),
    ("∇²W", "weight_block", Storage.WORK, "blocks of the weights"),
    ("BN", "block_product_weights", Storage.RESULT, "weight parts of the product with the blocks"),
    ("Bη", "block_product_biases", Storage.RESULT, "bias parts of the product with the blocks"),
    ("dW", "diagonal_weights", Storage.RESULT, "diagonals of the weights' blocks"),
    ("dβ", "diagonal_biases", Storage.RESULT, "diagonals of the biases' blocks"),
    ("mean", "mean", Storage.HYPERPARAMETER, "one over the batch size"),
)

CODE_NAMES: Mapping[str, str] = MappingProxyType({name: code for name, code, _, _ in _TABLE})
STORAGE: Mapping[str, Storage] = MappingProxyType({name: storage for name, _, storage, _ in _TABLE})
DESCRIPTIONS: Mapping[str, str] = MappingProxyType({name: text for name, _, _, text in _TABLE})
