"""Dense video object captioning (Zhou et al., "Dense Video Object Captioning from Disjoint Supervision", 2023)."""
