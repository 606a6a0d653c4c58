/* samdeploy: open a bundle, verify it, classify images.  C ABI, version 1.
 *
 *   samdeploy_classifier *classifier = NULL;
 *   if (samdeploy_open("bundle", NULL, &classifier) != SAMDEPLOY_OK) { puts(samdeploy_last_error()); return 1; }
 *   samdeploy_prepare_file(classifier, "photo.jpg", pixels);   // uint8 [H, W, 3], RGB
 *   samdeploy_run(classifier, pixels, 1, logits);              // float32 [1, K]
 *   samdeploy_close(classifier);
 *
 * The ABI: functions are added, never changed or removed, while SAMDEPLOY_ABI_VERSION stays.  A struct starts with its
 * size as the caller's compiler saw it, so that it can grow at its end: what an older caller does not know is taken as
 * 0, and a newer caller's field is refused unless it is 0.  No C++ exception leaves a function.
 *
 * Threads: one classifier may be used by many threads at once, also while one of them closes it.  A closed classifier,
 * and one that was opened before the process forked, are refused with a status.
 */
#ifndef SAMDEPLOY_H
#define SAMDEPLOY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SAMDEPLOY_API __attribute__((visibility("default")))
#else
#define SAMDEPLOY_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define SAMDEPLOY_ABI_VERSION 1

/* What a function returns; samdeploy_last_error() has the sentence to it. */
typedef enum samdeploy_status {
  SAMDEPLOY_OK = 0,
  SAMDEPLOY_ARGUMENT = 1,        /* an argument is NULL, out of range or an unknown name */
  SAMDEPLOY_NO_BUNDLE = 2,       /* no such folder, or manifest.json or one of its files is missing or unreadable */
  SAMDEPLOY_UNSAFE_PATH = 3,     /* a path leaves the bundle, or a link, folder or device stands on it */
  SAMDEPLOY_MANIFEST = 4,        /* manifest.json is no strict JSON, or its fields are wrong */
  SAMDEPLOY_NEWER_VERSION = 5,   /* of the format, than this library knows */
  SAMDEPLOY_CHANGED = 6,         /* a file has another length or SHA-256 than the manifest states */
  SAMDEPLOY_ARRAY = 7,           /* golden images or answers are no .npy arrays, or do not fit the model */
  SAMDEPLOY_TENSORS = 8,         /* the graph's tensors are not those of the manifest */
  SAMDEPLOY_WRONG_ANSWERS = 9,   /* the engine does not answer the golden images as the trained model did */
  SAMDEPLOY_UNAVAILABLE = 10,    /* this runtime cannot run the graph here in the precision asked for */
  SAMDEPLOY_IMAGE = 11,          /* an image is missing, damaged, or neither JPEG nor PNG of a known kind */
  SAMDEPLOY_IMAGE_TOO_LARGE = 12, /* more pixels or bytes than allowed, or too long and thin to be resized */
  SAMDEPLOY_NO_MEMORY = 13,
  SAMDEPLOY_INTERNAL = 14,       /* a defect of this library; please report the sentence */
  SAMDEPLOY_CLOSED = 15,         /* the classifier was closed, or never opened */
  SAMDEPLOY_FORKED = 16,         /* the classifier, or a runtime, is the parent's of this forked process */
  SAMDEPLOY_NOT_FINITE = 17      /* an answer holds infinities or no numbers: the image leaves the precision's range */
} samdeploy_status;

typedef struct samdeploy_classifier samdeploy_classifier;

typedef struct samdeploy_options {
  size_t struct_size;    /* sizeof(samdeploy_options) */
  const char *backend;   /* "openvino", "onnxruntime" or "tensorrt"; NULL: "openvino" */
  const char *precision; /* "fp32", "bf16", "fp16" or "int8"; NULL: "fp32" */
  int32_t threads;       /* that compute, of all requests together, up to 4096; 0: the runtime's choice */
  int32_t requests;      /* inferences at the same time, 0 to 1024; 0: one, for the lowest latency; others wait */
  uint64_t max_pixels;   /* of an image; 0: 178,956,970, twice what Pillow warns at */
  uint64_t max_bytes;    /* of an encoded image; 0: 67,108,864 (64 MiB) */
} samdeploy_options;

#define SAMDEPLOY_OPTIONS_INIT {sizeof(samdeploy_options), NULL, NULL, 0, 0, 0, 0}

typedef struct samdeploy_description {
  size_t struct_size;    /* sizeof(samdeploy_description), set by the caller */
  uint32_t height;       /* of the model's input, in pixels */
  uint32_t width;
  size_t classes;        /* K */
  const char *backend;   /* texts belong to the classifier */
  const char *precision;
  const char *arch;
  double temperature;    /* logits are divided by it before the softmax; 1 where the bundle has none */
  double threshold;      /* an answer whose best probability is below it is rejected; 0: none is */
} samdeploy_description;

typedef struct samdeploy_score {
  size_t index;       /* of the class: its column in the logits */
  double probability; /* softmax with the bundle's temperature, in [0, 1] */
} samdeploy_score;

/* SAMDEPLOY_ABI_VERSION of the library that runs; an application may compare it with its header's. */
SAMDEPLOY_API uint32_t samdeploy_abi_version(void);
/* Release of the library, such as "0.1.0". */
SAMDEPLOY_API const char *samdeploy_version(void);
/* What went wrong in this thread's last call that failed; valid until its next one that fails.  Never NULL. */
SAMDEPLOY_API const char *samdeploy_last_error(void);

/* Open a bundle (its folder), verify manifest, paths, hashes, precision and golden answers.  `options` may be NULL. */
SAMDEPLOY_API samdeploy_status samdeploy_open(const char *bundle, const samdeploy_options *options,
                                              samdeploy_classifier **classifier);
/* Release it, and the texts that belong to it; NULL and what is closed already are allowed. */
SAMDEPLOY_API void samdeploy_close(samdeploy_classifier *classifier);
SAMDEPLOY_API samdeploy_status samdeploy_describe(const samdeploy_classifier *classifier,
                                                  samdeploy_description *description);
/* Name of a class in UTF-8, owned by the classifier; NULL beyond the last. */
SAMDEPLOY_API const char *samdeploy_class_name(const samdeploy_classifier *classifier, size_t index);

/* Decode and resize a JPEG or PNG to uint8 [H, W, 3], RGB: `pixels` has room for H * W * 3 bytes. */
SAMDEPLOY_API samdeploy_status samdeploy_prepare_file(const samdeploy_classifier *classifier, const char *path,
                                                      uint8_t *pixels);
SAMDEPLOY_API samdeploy_status samdeploy_prepare_memory(const samdeploy_classifier *classifier, const void *encoded,
                                                        size_t size, uint8_t *pixels);
/* Resize uint8 [height, width, 3], RGB, whose rows start `stride` bytes apart (0: width * 3). */
SAMDEPLOY_API samdeploy_status samdeploy_prepare_rgb(const samdeploy_classifier *classifier, const uint8_t *rgb,
                                                     uint32_t height, uint32_t width, size_t stride, uint8_t *pixels);

/* uint8 [count, H, W, 3], RGB, as the functions above made them -> float32 [count, K]; both belong to the caller.
 * After the first call of a batch size this library reserves no memory in here. */
SAMDEPLOY_API samdeploy_status samdeploy_run(samdeploy_classifier *classifier, const uint8_t *batch, size_t count,
                                             float *logits);
/* The same between addresses of CUDA device 0, queued on `stream` (a cudaStream_t) without waiting: both must stay as
 * they are until the stream has passed the work.  Of the backends, "tensorrt" can do it. */
SAMDEPLOY_API samdeploy_status samdeploy_run_device(samdeploy_classifier *classifier, const void *batch, size_t count,
                                                    void *logits, void *stream);
/* The `wanted` most probable classes of one row of logits, best first; of equal ones the lower index comes first.
 * best[0].probability < samdeploy_description.threshold: the answer is rejected, too often wrong to act on.
 * `wanted` beyond K is an error, and a logit that is not finite (SAMDEPLOY_NOT_FINITE). */
SAMDEPLOY_API samdeploy_status samdeploy_rank(const samdeploy_classifier *classifier, const float *logits,
                                              samdeploy_score *best, size_t wanted);

#ifdef __cplusplus
}
#endif
#endif
