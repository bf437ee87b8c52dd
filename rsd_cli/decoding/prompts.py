"""The prompts that generators see."""

# Paper, section 4 and its code (`qwen25-math-cot`).
MATHS = "Please reason step by step, and put your final answer within \\boxed{}."
