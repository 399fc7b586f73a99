"""``unet-train check``: what a dataset holds, every oddity by name, and what training does about it."""

from unet_training.check.inspect import check_dataset
from unet_training.check.page import write_page
from unet_training.check.report import KINDS, Report

__all__ = ["KINDS", "Report", "check_dataset", "write_page"]
