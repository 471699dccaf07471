struct H {}
