"""The call conventions of other libraries, with this library's derivatives behind them."""
