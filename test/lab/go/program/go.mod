module lab/program

go 1.24
