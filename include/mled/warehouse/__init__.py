"""Reading the store into staging and publishing the mart."""
