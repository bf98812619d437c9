#include "sim/words.h"

#include <stdlib.h>
#include <string.h>

#include "sim/base.h"

bool take_value(const char *name, int argc, char **argv, int *i, const char **value)
{
    size_t length = strlen(name);

    if (strncmp(argv[*i], name, length) != 0)
        return false;
    if (argv[*i][length] == '=') {
        *value = argv[*i] + length + 1;
        return true;
    }
    if (argv[*i][length] != '\0')
        return false;
    *value = *i + 1 < argc ? argv[++*i] : NULL;
    return true;
}

void take_count(const char *name, uint32_t most, int *argc, char **argv, uint32_t *count,
                char **wrong)
{
    int left = 0;

    for (int i = 0; i < *argc; i++) {
        const char *value;
        char *end = NULL;
        unsigned long number = 0;

        if (!take_value(name, *argc, argv, &i, &value)) {
            argv[left++] = argv[i];
            continue;
        }
        if (value != NULL && *value >= '0' && *value <= '9')
            number = strtoul(value, &end, 10);
        if (*wrong == NULL && (end == NULL || *end != '\0' || number < 1 || number > most))
            *wrong = format_text("%s: '%s' is not a whole number from 1 to %u", name,
                                 value != NULL ? value : "", most);
        *count = (uint32_t)number;
    }
    *argc = left;
}

void take_word(const char *name, int *argc, char **argv, const char **word)
{
    int left = 0;

    for (int i = 0; i < *argc; i++) {
        const char *value;

        if (take_value(name, *argc, argv, &i, &value))
            *word = value != NULL ? value : "";
        else
            argv[left++] = argv[i];
    }
    *argc = left;
}
