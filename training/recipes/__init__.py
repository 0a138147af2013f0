"""How `backhand train` trains each model: its data, its defaults, its metrics, its pictures."""

from backhand.training.recipes import answering, generative, images, segmenting, tasks, writing
from backhand.training.recipes.base import DEFAULTS, IMAGES, Plan, Recipe
from backhand.training.recipes.images import build_model

RECIPES: dict[str, Recipe] = {
    **images.RECIPES,
    **segmenting.RECIPES,
    **tasks.RECIPES,
    **answering.RECIPES,
    **writing.RECIPES,
    **generative.RECIPES,
}

__all__ = ["DEFAULTS", "IMAGES", "RECIPES", "Plan", "Recipe", "build_model"]
