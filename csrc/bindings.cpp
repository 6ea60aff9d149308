// The extension module `_native`: what Python does badly, bound with pybind11. Types for readers and
// checkers are in _native.pyi.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "bind_matching.hpp"
#include "packing.hpp"

namespace py = pybind11;

namespace {

template <typename Integer>
py::tuple pack_typed(const py::array& lengths, std::int64_t capacity) {
    using Contiguous = py::array_t<Integer, py::array::c_style | py::array::forcecast>;
    const auto input = Contiguous::ensure(lengths);
    if (!input) throw py::error_already_set();
    const auto count = static_cast<std::size_t>(input.size());
    py::array_t<std::int32_t> bin_of(input.size());
    const Integer* from = input.data();
    std::int32_t* to = bin_of.mutable_data();
    std::int32_t num_bins;
    {
        py::gil_scoped_release release;
        num_bins = babyvlm::pack_best_fit(from, count, capacity, to);
    }
    return py::make_tuple(bin_of, num_bins);
}

py::tuple pack_best_fit(const py::array& lengths, std::int64_t capacity) {
    if (lengths.ndim() == 1) {
        if (py::isinstance<py::array_t<std::int32_t>>(lengths)) {
            return pack_typed<std::int32_t>(lengths, capacity);
        }
        if (py::isinstance<py::array_t<std::int64_t>>(lengths)) {
            return pack_typed<std::int64_t>(lengths, capacity);
        }
    }
    throw py::value_error("lengths is an array of " + std::to_string(lengths.ndim()) +
                          " dimensions and type " + py::str(lengths.dtype()).cast<std::string>() +
                          "; accepted: one dimension of int32 or int64");
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.doc() = "Parts of the project in C++.";
    module.def("pack_best_fit", &pack_best_fit, py::arg("lengths"), py::arg("capacity"),
               "Best-fit decreasing packing: (bin of each sequence, number of bins).");
    bind_matching(module);
}
