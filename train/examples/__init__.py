"""What adapters learn from: cases as prompts with their answers, and the products that were not chosen."""
