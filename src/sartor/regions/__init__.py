"""The networks within limits: membership, draws, repair, knock-outs among them, and what they are worth."""
