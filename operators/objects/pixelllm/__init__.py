"""PixelLLM: language that takes places in a picture and gives them."""
