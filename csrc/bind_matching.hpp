// Adds the matching classes to the extension module.

#pragma once

#include <pybind11/pybind11.h>

void bind_matching(pybind11::module_& module);
