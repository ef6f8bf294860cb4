"""The scores themselves: pure functions of arrays, one file a family."""
