"""The data lake: landing files as producers wrote them, and the tables that the steps make of them."""
