// Which markers a JPEG has, and whether they lead to its end (ITU-T T.81, annex B), before libjpeg sees it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "image.hpp"

namespace samdeploy::core {

struct JpegMarkers {
  std::uint32_t width = 0, height = 0;  // pixels
  int components = 0;
  std::uint64_t coefficient_bytes = 0;  // of all components, where they must be held whole
  unsigned scans = 0;
  std::size_t end = 0;  // behind EOI
  std::string exif;
  std::string_view xmp;
};

// Follows the markers to EOI; what comes after it is not looked at.
// Throws IMAGE: they do not lead there, over too many scans, or the process is not read.  IMAGE_TOO_LARGE.
JpegMarkers follow_markers(const std::uint8_t* encoded, std::size_t size, const ImageLimits& limits);

}  // namespace samdeploy::core
