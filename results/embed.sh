#!/bin/sh
# embed.sh NAME FILE -- FILE as a C string NAME, on stdout.  An array of characters, for a literal
# of more than 4095 is beyond C11.
echo "static const char $1[] = {"
od -A n -v -t x1 "$2" | sed 's/ \(..\)/0x\1,/g'
echo '0};'
