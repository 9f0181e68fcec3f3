"""The rules of Holdfast: values in, values out. No I/O, no clock, no chance, no await, no logging."""
