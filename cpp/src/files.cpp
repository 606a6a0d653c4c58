#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "error.hpp"

namespace samdeploy::core {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() {
    const int value = value_;
    value_ = -1;
    return value;
  }
  void replace(int value) {
    if (value_ >= 0) ::close(value_);
    value_ = value;
  }

 private:
  int value_;
};

// The names in "a/b.onnx"; empty where the path is absolute, climbs, or is written in another way than the plain one.
std::vector<std::string> plain_parts(const std::string& relative) {
  constexpr std::size_t longest = 4096;  // on Linux
  if (relative.size() > longest || relative.find('\\') != std::string::npos) return {};
  if (relative.find('\0') != std::string::npos) return {};
  std::vector<std::string> parts;
  for (std::size_t start = 0; start <= relative.size();) {
    const std::size_t end = std::min(relative.find('/', start), relative.size());
    parts.push_back(relative.substr(start, end - start));
    if (parts.back().empty() || parts.back() == "." || parts.back() == "..") return {};
    start = end + 1;
  }
  return parts;
}

// Fills `size` bytes at `target`.
void read_all(int descriptor, std::uint8_t* target, std::size_t size, const char* name, samdeploy_status status) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(descriptor, target + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw Error(status, std::string(name) + " cannot be read (" + std::strerror(errno) + ")");
    if (count == 0) throw Error(status, std::string(name) + " became shorter while it was read; try again");
    done += static_cast<std::size_t>(count);
  }
}

}  // namespace

Folder::Folder(const std::string& path) : path_(path), descriptor_(-1) {
  if (path.empty()) throw Error(SAMDEPLOY_NO_BUNDLE, "bundle '': is no path; name the bundle's folder");
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) {
    throw Error(SAMDEPLOY_NO_BUNDLE, "bundle " + path + ": no such folder; make one: samdeploy export");
  }
  if (!S_ISDIR(status.st_mode)) {
    throw Error(SAMDEPLOY_NO_BUNDLE, "bundle " + path + ": is a file; name the bundle's folder");
  }
  descriptor_ = ::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) {
    throw Error(SAMDEPLOY_NO_BUNDLE, "bundle " + path + ": cannot be opened (" + std::strerror(errno) + ")");
  }
}

Folder::~Folder() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

int Folder::open_file(const std::string& relative, std::uint64_t* size) const {
  const std::string name = "bundle " + path_ + ": '" + relative.substr(0, 200) + "'";
  const std::vector<std::string> parts = plain_parts(relative);
  if (parts.empty()) {
    throw Error(SAMDEPLOY_UNSAFE_PATH, name + " leaves the folder or is not plain; expected one like 'a/b.onnx'");
  }
  Descriptor at(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0));
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const char* part = parts[i].c_str();
    struct stat status;
    // The look is for the message; O_NOFOLLOW below is what no race can pass.
    if (::fstatat(at.get(), part, &status, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT || errno == ENOTDIR) {
        throw Error(SAMDEPLOY_NO_BUNDLE, name + " is missing; the folder is incomplete; copy or export it again");
      }
      throw Error(SAMDEPLOY_NO_BUNDLE, name + " cannot be read (" + std::strerror(errno) + ")");
    }
    if (S_ISLNK(status.st_mode)) {
      throw Error(SAMDEPLOY_UNSAFE_PATH, name + " is a symbolic link or behind one; copy the bundle with cp -rL");
    }
    const bool last = i + 1 == parts.size();
    if (!last && !S_ISDIR(status.st_mode)) {
      throw Error(SAMDEPLOY_NO_BUNDLE, name + " is missing; the folder is incomplete; copy or export it again");
    }
    if (last && !S_ISREG(status.st_mode)) throw Error(SAMDEPLOY_UNSAFE_PATH, name + " is not a plain file");
    const int flags = O_NOFOLLOW | O_CLOEXEC | (last ? O_RDONLY | O_NONBLOCK : O_PATH | O_DIRECTORY);
    const int next = ::openat(at.get(), part, flags);
    if (next < 0) throw Error(SAMDEPLOY_NO_BUNDLE, name + " cannot be read (" + std::strerror(errno) + ")");
    at.replace(next);
  }
  struct stat status;
  if (::fstat(at.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    throw Error(SAMDEPLOY_UNSAFE_PATH, name + " is not a plain file");
  }
  if (status.st_nlink > 1) {
    throw Error(SAMDEPLOY_UNSAFE_PATH, name + " has " + std::to_string(status.st_nlink) +
                                           " hard links; copy the folder without links");
  }
  *size = static_cast<std::uint64_t>(status.st_size);
  return at.release();
}

void Folder::check(const std::string& relative) const {
  std::uint64_t size = 0;
  Descriptor file(open_file(relative, &size));
}

Bytes Folder::read(const std::string& relative, std::int64_t expected, std::uint64_t limit) const {
  std::uint64_t size = 0;
  Descriptor file(open_file(relative, &size));
  const std::string name = "bundle " + path_ + ": '" + relative + "'";
  if (expected >= 0 && size != static_cast<std::uint64_t>(expected)) {
    throw Error(SAMDEPLOY_CHANGED, name + " has " + std::to_string(size) + " bytes, the manifest states " +
                                       std::to_string(expected) +
                                       "; the file was truncated or replaced; copy or export the bundle again");
  }
  if (size > limit) {
    throw Error(SAMDEPLOY_MANIFEST, name + " has " + std::to_string(size) + " bytes, at most " +
                                        std::to_string(limit) + " are read; this is no bundle of samdeploy");
  }
  Bytes content(size);
  read_all(file.get(), content.data(), content.size(), name.c_str(), SAMDEPLOY_NO_BUNDLE);
  return content;
}

void read_image(const char* path, const ImageLimits& limits, Buffer* content) {
  if (*path == '\0') throw Error(SAMDEPLOY_IMAGE, "'': is no path, an image was expected");
  Descriptor file(::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  const auto refuse = [](const std::string& why) { throw Error(SAMDEPLOY_IMAGE, why); };
  try {
    struct stat status;
    if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
      if (errno == ENOENT) refuse("no such file");
      if (errno == EACCES) refuse("may not be read (permission denied)");
      refuse(std::string("cannot be read (") + std::strerror(errno) + ")");
    }
    if (S_ISDIR(status.st_mode)) refuse("is a folder, an image was expected");
    if (!S_ISREG(status.st_mode)) refuse("is no plain file, an image was expected");
    const auto size = static_cast<std::uint64_t>(status.st_size);
    check_encoded(size, limits);
    std::uint8_t start[16];
    const std::size_t first = std::min<std::uint64_t>(size, sizeof start);
    read_all(file.get(), start, first, "the file", SAMDEPLOY_IMAGE);
    check_format(start, first);
    content->resize(size);
    std::memcpy(content->data(), start, first);
    read_all(file.get(), content->data() + first, size - first, "the file", SAMDEPLOY_IMAGE);
  } catch (const Error& error) {
    throw Error(error.status(), std::string(path) + ": " + error.what());
  }
}

}  // namespace samdeploy::core
