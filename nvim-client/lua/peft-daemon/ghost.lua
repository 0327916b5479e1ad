-- Draws a suggestion as ghost text, as far as the window has room for it.
--
-- Neovim cuts virtual lines at the window's end and at its right edge. What cannot be seen must not be accepted, so the
-- text is folded at the edge, and whoever accepts learns how many lines could be seen.

local M = {}

M.space = vim.api.nvim_create_namespace("peft_daemon")

local GHOST, HINT = "PeftDaemonGhost", "PeftDaemonHint"

---Define the colours, so that a colour scheme or the user may define them first.
function M.define_highlights()
  vim.api.nvim_set_hl(0, GHOST, { link = "Comment", default = true })
  vim.api.nvim_set_hl(0, HINT, { link = "NonText", default = true })
end

---@param buffer integer
function M.clear(buffer)
  if vim.api.nvim_buf_is_valid(buffer) then
    vim.api.nvim_buf_clear_namespace(buffer, M.space, 0, -1)
  end
end

---Fold a line where the window ends.
---@param line string
---@param width integer
---@return string[]
local function folded(line, width)
  local tab = vim.bo.tabstop
  local rows, row, used = {}, {}, 0
  for _, character in ipairs(vim.fn.split(line, "\\zs")) do
    -- Virtual text shows a tab as one cell or as ^I; a real line will have it at the next stop.
    local shown = character == "\t" and (" "):rep(tab - used % tab) or character
    local cells = vim.fn.strdisplaywidth(shown)
    if used + cells > width and used > 0 then
      rows[#rows + 1] = table.concat(row)
      row, used = {}, 0
    end
    row[#row + 1] = shown
    used = used + cells
  end
  rows[#rows + 1] = table.concat(row)
  return rows
end

---How many screen rows there are below the cursor's line, with what is shown inside that line.
---@param window integer
---@param row integer 0-based
---@return integer
local function rows_below(window, row)
  local first = vim.fn.line("w0", window) - 1
  local above = vim.api.nvim_win_text_height(window, { start_row = math.min(first, row), end_row = row }).all
  return math.max(vim.api.nvim_win_get_height(window) - above, 0)
end

---@param count integer
---@return string
local function more(count)
  return ("… %d more line%s"):format(count, count == 1 and "" or "s")
end

---Show text at the cursor of a window.
---@param window integer
---@param text string what would be inserted
---@param note? string shown behind the first line
---@return integer lines how many lines of it can be seen as a whole
function M.draw(window, text, note)
  local buffer = vim.api.nvim_win_get_buf(window)
  local row, column = unpack(vim.api.nvim_win_get_cursor(window))
  row = row - 1
  M.clear(buffer)
  local lines = vim.split(text, "\n", { plain = true })
  local first = lines[1]:gsub("\t", (" "):rep(vim.bo[buffer].tabstop))
  local mark = {
    virt_text = { { first, GHOST } },
    virt_text_pos = "inline",
    hl_mode = "combine",
  }
  if note then
    vim.list_extend(mark.virt_text, { { "  " .. note, HINT } })
  end
  -- Drawn first without the other lines: only then it is known where the cursor's line ends.
  mark.id = vim.api.nvim_buf_set_extmark(buffer, M.space, row, column, mark)
  if #lines == 1 then
    return 1
  end

  local room = rows_below(window, row)
  local info = vim.fn.getwininfo(window)[1]
  local width = math.max(info.width - info.textoff, 1)
  local below, seen = {}, 1 ---@type [string, string][][], integer
  for index = 2, #lines do
    local rows = folded(lines[index], width)
    local last = index == #lines
    -- The row of the hint has to fit too, unless this is all.
    if #below + #rows + (last and 0 or 1) > room then
      break
    end
    for _, part in ipairs(rows) do
      below[#below + 1] = { { part, GHOST } }
    end
    seen = index
  end
  if seen < #lines then
    local hint = { more(#lines - seen), HINT }
    if #below < room then
      below[#below + 1] = { hint }
    else
      table.insert(mark.virt_text, { "  " .. hint[1], HINT })
    end
  end
  mark.virt_lines = below
  vim.api.nvim_buf_set_extmark(buffer, M.space, row, column, mark)
  return seen
end

---Scroll so that text of so many lines fits below the cursor, as far as the cursor's line stays in the window.
---@param window integer
---@param lines integer
function M.make_room(window, lines)
  local row = vim.api.nvim_win_get_cursor(window)[1]
  local missing = lines - 1 - rows_below(window, row - 1)
  local top = vim.fn.line("w0", window)
  if missing > 0 and top < row then
    vim.api.nvim_win_call(window, function()
      vim.fn.winrestview({ topline = math.min(top + missing, row) })
    end)
  end
end

return M
