/* The smallest use of samdeploy from C: classify BUNDLE IMAGE prints the class and its probability. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "samdeploy.h"

static int failed(void) {
  fprintf(stderr, "classify: %s\n", samdeploy_last_error());
  return 1;
}

int main(int count, char **argument) {
  samdeploy_classifier *classifier = NULL;
  samdeploy_description about = {0};
  samdeploy_score best;
  unsigned char *pixels;
  float *logits;
  int status = 1;

  if (count != 3) {
    fprintf(stderr, "usage: classify BUNDLE IMAGE\n");
    return 2;
  }
  if (samdeploy_open(argument[1], NULL, &classifier) != SAMDEPLOY_OK) return failed();
  about.struct_size = sizeof about;
  if (samdeploy_describe(classifier, &about) != SAMDEPLOY_OK) return failed();

  pixels = malloc((size_t)about.height * about.width * 3);
  logits = malloc(about.classes * sizeof *logits);
  if (pixels == NULL || logits == NULL) {
    fprintf(stderr, "classify: no memory left\n");
  } else if (samdeploy_prepare_file(classifier, argument[2], pixels) != SAMDEPLOY_OK ||
             samdeploy_run(classifier, pixels, 1, logits) != SAMDEPLOY_OK ||
             samdeploy_rank(classifier, logits, &best, 1) != SAMDEPLOY_OK) {
    failed();
  } else {
    printf("%s %.4f%s\n", samdeploy_class_name(classifier, best.index), best.probability,
           best.probability < about.threshold ? " rejected" : "");
    if (fflush(stdout) == 0) status = 0; /* a full disk shows only here */
    else fprintf(stderr, "classify: output: %s\n", strerror(errno));
  }
  free(logits);
  free(pixels);
  samdeploy_close(classifier);
  return status;
}
