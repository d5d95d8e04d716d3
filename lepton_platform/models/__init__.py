"""Networks, and the pretrained encoders that some of them start from."""
