"""UnLoc: one model for moment retrieval, temporal localization and action segmentation."""
