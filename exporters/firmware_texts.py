"""Texts of the files for firmware, filled in by `firmware.py`."""

HEADER = """// {path} for {board}, made by compress-export; do not edit.
// sha256 of the file: {sha256}
#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

#define MODEL_DATA_BYTES {size}
#define TENSOR_ARENA_BYTES {arena}  // {origin}, see FIRMWARE.md

{input}
{output}

#ifdef __cplusplus
extern "C" {{
#endif
extern const unsigned char model_data[MODEL_DATA_BYTES];
#ifdef __cplusplus
}}
#endif

#endif  // MODEL_DATA_H_
"""

# C11 and C++11 alike.
SOURCE = """// {path} as an array; do not edit.
#include "{header}"

#ifndef __cplusplus
#include <stdalign.h>
#endif

alignas(16) const unsigned char model_data[MODEL_DATA_BYTES] = {{
{rows}
}};
"""

CARD = """# {model} for {board}: firmware

`model_data.h` and `model_data.cc` hold the {size} bytes of `{path}` as the array `model_data`,
aligned to 16 bytes, which stays in flash.

| Memory | Use |
|---|---|
| Flash, the array | {flash} |
| RAM, the tensor arena | {ram} |

The interpreter's and the kernels' code, the stack and the application come on top.

## Arena: {arena} bytes

{origin}
Optimized kernels (CMSIS-NN) ask for scratch memory of a few KiB that the reference kernels do
without: print `interpreter.arena_used_bytes()` on the board, and add what is missing.

## Interpreter

```cpp
#include "model_data.h"

alignas(16) static uint8_t arena[TENSOR_ARENA_BYTES];
static tflite::MicroMutableOpResolver<{count}> resolver;
{adds}
static tflite::MicroInterpreter interpreter(
    tflite::GetModel(model_data), resolver, arena, TENSOR_ARENA_BYTES);
interpreter.AllocateTensors();
```

## Tensors

| Tensor | Type | Shape | Scale | Zero point |
|---|---|---|---|---|
{tensors}

Images are {order}, row by row, channels last. Per channel, x = (pixel * {pixel_scale} - mean) / std
with mean {mean} and std {std}; the input is q = round(x / scale) + zero point, clipped to
-128..127. With integers alone: a table of 256 entries per channel.
The class is the index of the largest output; its value is (q - zero point) * scale.
"""
