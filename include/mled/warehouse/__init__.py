"""Reading the store into staging, building the marts, and publishing them."""
