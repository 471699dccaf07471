public import HugeSpanCore
