"""What a response gives as its answer: thoughts set aside, claims found, numbers, choices and expressions read.

Text in, text out, in time that grows linearly with the text: responses may be long and strange.
"""
